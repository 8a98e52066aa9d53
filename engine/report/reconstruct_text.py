"""What `embank reconstruct` prints."""

from collections.abc import Sequence

from engine.report import console
from engine.report.console import write as print
from engine.report.json_parts import members, objects
from stores.json_types import JsonObject


def print_reconstructions(reports: Sequence[JsonObject]) -> None:
    """Print, for each model, a line for each network, the means, and what a reader must know."""
    for report in reports:
        _print_one(report)


def _print_one(r: JsonObject) -> None:
    console.print_table(
        ["image", "seed", "initial loss", "loss", "LPIPS", "reason"],
        [
            [
                item["image_id"],
                item["seed"],
                item["initial_loss"],
                item["loss"],
                members(item["lpips"])["mean"],
                f"{item['reason']}: {item['detail']}" if "reason" in item else "",
            ]
            for item in objects(r["items"])
        ],
    )
    shape = r["shape"] if isinstance(r["shape"], list) else []
    print(
        f"{r['model']} (weights {str(r['weights'])[:8]}): map {r['layer']}, "
        f"{' x '.join(str(size) for size in shape)}; {r['images']} images, {r['failed']} failed",
        f"LPIPS {_mean(members(r['lpips']))}",
        f"loss {_mean(members(r['loss']))}",
        f"mode {r['mode']}: {r['updates']:,} updates, {r['seeds']} "
        f"{'seed' if r['seeds'] == 1 else 'seeds'} an image, lr {r['lr']:g}, {r['side']} pixels, "
        f"{r['precision']}; {r['computed']} networks computed, {r['seconds']:.1f} s",
        sep="\n",
    )
    for name in ("notes", "files"):
        lines = r.get(name)
        for line in lines if isinstance(lines, list) else ():
            print(line)


def _mean(summary: JsonObject) -> str:
    """Describe a mean with its interval over images and its spread between seeds."""
    if "reason" in summary:
        return f"undefined: {summary['reason']}"
    bounds = members(summary["interval"])
    between = bounds.get("reason") or f"{bounds['low']:.4f} to {bounds['high']:.4f} over images or patients"
    return f"{summary['mean']:.4f}, 95 %: {between}; sd between seeds {summary['seed_sd']:.4f}"
