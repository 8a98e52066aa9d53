"""What `embank fewshot` prints."""

from typing import Any

from engine.report.console import write as print
from engine.report.controls_text import print_controls
from engine.report.evaluation_text import over_patients, print_notes, print_splits
from engine.report.marks import mark


def print_fewshot(results: list[dict[str, Any]]) -> None:
    for r in results:
        apart = "patients apart, " if r["group_disjoint"] else ""
        accuracy = f"{r['accuracy']:.4f}{mark(r, 'accuracy')} ± {r['ci95']:.4f}"
        print(
            f"{r['model']}: {r['n_way']}-way {r['n_shot']}-shot accuracy {accuracy} "
            f"({r['episodes']} episodes, {apart}{r['images']:,} images, "
            f"{r['masked']:,} missing, {r['seconds']:.2f} s)"
        )
        print_splits(r)
        if r["patients"]["groups"]:
            print(f"  {over_patients(r['patients'])}")
        if boot := r.get("bootstrap"):
            spread = boot.get("reason") or f"{boot['low']:.4f} to {boot['high']:.4f}"
            print(f"  {boot['resamples']:,} resamples of {boot['groups']:,} patients or images: {spread}")
    for position, r in enumerate(results):
        for p in r["paired"][position:]:
            patients = p["patients"]
            beside = f"; {over_patients(patients, '+.4f')}" if patients["groups"] else ""
            over = "the same episodes" if beside else "the same episodes of the same images only"
            print(
                f"{r['model']} - {p['model']}: {p['difference']:+.4f} ± {p['ci95']:.4f} over {over}{beside}"
            )
    print_notes(results)
    print_controls(results)
