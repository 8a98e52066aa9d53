"""Facts about CheXpert: findings, counts and the page that users read."""

from engine.datasets._protocol import MODES, Facts, Option

#: Findings in the order of the label table.
FINDINGS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
#: Finding -> images of `train.csv` that are positive, uncertain, negative, not mentioned.
IMAGE_COUNTS = {
    "No Finding": (22381, 0, 0, 201033),
    "Enlarged Cardiomediastinum": (10798, 12403, 21638, 178575),
    "Cardiomegaly": (27000, 8087, 11116, 177211),
    "Lung Opacity": (105581, 5598, 6599, 105636),
    "Lung Lesion": (9186, 1488, 1270, 211470),
    "Edema": (52246, 12984, 20726, 137458),
    "Consolidation": (14783, 27742, 28097, 152792),
    "Pneumonia": (6039, 18770, 2799, 195806),
    "Atelectasis": (33376, 33739, 1328, 154971),
    "Pneumothorax": (19448, 3145, 56341, 144480),
    "Pleural Effusion": (86187, 11628, 35396, 90203),
    "Pleural Other": (3523, 2653, 316, 216922),
    "Fracture": (9040, 642, 2512, 211220),
    "Support Devices": (116001, 1079, 6137, 100197),
}
#: Rows of `train.csv`, and of the study's training part of it.
ROWS = 223_414
TRAIN_ROWS = 134_049
#: Label -> images of the study's few-shot pool.
PUBLISHED_POOL = {"positive": 4356, "negative": 5645}

facts = Facts(
    name="chexpert",
    title="chest radiographs in two views with 14 findings, uncertainty marked",
    source=(
        "Irvin and others 2019, CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and "
        "Expert Comparison, AAAI 33, doi:10.1609/aaai.v33i01.3301590"
    ),
    licence="Stanford University Dataset Research Use Agreement: registration, research only, no passing on",
    images=ROWS,
    classes={"positive": 86187, "negative": 125599, "": 11628},
    groups="the patient",
    caveats=(
        "The labels were read out of reports by rules; only valid.csv and the test set were read by "
        "radiologists.",
        "A finding that a report does not mention is blank and counts as negative here, as is usual.",
        "Labels belong to studies: all views of a study share them. 40.34 % of the studies, but 38.58 % of "
        "the images, have a pleural effusion; with uncertain as positive it is 43.78 %.",
        "as-published splits by image: 81.23 % of its test images belong to a training patient, and 19.41 % "
        "share their study, hence their label, with a training image.",
        "Always guessing the larger class is right on 61.345 % (uncertain as negative) or 56.242 % (as "
        "positive) of the study's test images.",
        "19 laterals of 16 studies have no frontal partner.",
        "MIMIC-CheXpert and MoCo-CXR saw CheXpert's training images in pretraining.",
        "The small images are about 390 x 320, the full ones 2,000 to 3,000 pixels a side: manifests of the "
        "two have the same ids, splits and labels, but are different images.",
    ),
    download=(
        "Register at https://stanfordmlgroup.github.io/competitions/chexpert/ and fetch CheXpert-v1.0-small "
        "(11 GB), or the full CheXpert-v1.0 (439 GB: four batches since 2021).",
        "Unpack it. All three layouts below are taken as they are.",
    ),
    layout=(
        "ROOT/CheXpert-v1.0-small/train.csv       (or beside that folder; or the folder itself is ROOT)",
        "ROOT/CheXpert-v1.0-small/valid.csv",
        "ROOT/CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg",
        "",
        "ROOT/CheXpert-v1.0/...                   the same, full size",
        "",
        "ROOT/CheXpert-v1.0 batch 1 (validate & csv)/{train.csv,valid.csv,valid/...}",
        "ROOT/CheXpert-v1.0 batch 2 (train 1)/patient00001/study1/view1_frontal.jpg",
        "ROOT/CheXpert-v1.0 batch 3 (train 2)/..., batch 4 (train 3)/...",
    ),
    label=(
        "`positive` or `negative` for one finding (option label); blank is negative. Uncertain findings: "
        "ignore leaves the row without label, zeros makes it negative, ones positive, soft positive with a "
        "draw from [0.55, 0.85) in the column `target`. as-published: ones for few-shot; zeros for linear "
        "and finetune (a draw from that interval, cut to an integer). All 14 findings stay as columns."
    ),
    splits=(
        "default: 40 % of the patients of train.csv are test, chosen by a hash of patient and seed. "
        "as-published: rows shuffled (NumPy RandomState 42), the first 134,049 are train; a fifth of them "
        "(RandomState 0) is marked in the column `validation`; few-shot: the first 10,001 rows."
    ),
    checked=(
        "Rows, patients, findings, views and the study's splits were computed from the label table; sizes in "
        "pixels and bytes and the batches' layout are general knowledge."
    ),
    modes=MODES,
    options=(
        Option("label", "Pleural Effusion", "the finding that is the label", FINDINGS),
        Option(
            "uncertain",
            "",
            "what uncertain findings become; ignore unless given (default mode only)",
            ("ignore", "zeros", "ones", "soft"),
        ),
        Option(
            "evaluation",
            "linear",
            "as-published: whose label rule and rows; linear also stands for finetune and invariances",
            ("linear", "few-shot"),
        ),
        Option(
            "valid",
            "no",
            "list the 234 images of valid.csv, too, as this split (default mode only)",
            ("no", "val", "test"),
        ),
        Option(
            "files",
            "all",
            "present looks for every file and leaves out rows without one",
            ("all", "present"),
        ),
        Option("seed", "0", "of the split by patient and of soft labels (default mode)"),
    ),
)
