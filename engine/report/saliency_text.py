"""What `embank saliency` prints."""

from engine.report import console
from engine.report.console import write as print
from engine.report.json_parts import members, objects
from stores.json_types import JsonObject


def print_saliency(r: JsonObject) -> None:
    """Print a line for each image, their mean, the settings, and what a reader must know."""
    console.print_table(
        ["image", f"attentive diffusion, stride {r['stride']}", "mean score", "largest error", "reason"],
        [
            [
                item["image_id"],
                item["attentive_diffusion"],
                item.get("mean_score", ""),
                members(item["error"])["max_error"] if "error" in item else "",
                f"{item['reason']}: {item['detail']}" if "reason" in item else "",
            ]
            for item in objects(r["items"])
        ],
    )
    between = members(r["interval"])
    spread = between.get("reason") or f"{between['low']:.4f} to {between['high']:.4f} over images or patients"
    print(
        f"{r['model']} (weights {str(r['weights'])[:8]}): attentive diffusion {r['mean']:.4f}, "
        f"sd {r['sd']:.4f}, 95 %: {spread}; "
        f"{r['images']} images, {r['failed']} failed",
        f"{r['size']} x {r['size']} at stride {r['stride']}, fill {r['fill']}, {r['places']:,} places an "
        f"image, {r['precision']}; {r['computed']} maps computed, {r['seconds']:.1f} s",
        sep="\n",
    )
    if error := members(r["stride_error"]):
        print(_stride_error_line(error))
    for name in ("notes", "files"):
        lines = r.get(name)
        for line in lines if isinstance(lines, list) else ():
            print(line)


def _stride_error_line(error: JsonObject) -> str:
    if "reason" in error:
        return f"distance from the exact map (stride 1): not known: {error['reason']}"
    return (
        f"distance from the exact map (stride 1): {error['mean_error']:.2g} on average, at most "
        f"{error['max_error']:.2g}, where the exact map is {error['mean_score']:.2g} on average; "
        f"{error['other_side']:.1%} of pixels lie on the other side of the mean "
        f"({error['pixels']:,} pixels of {error['image_id']})"
    )
