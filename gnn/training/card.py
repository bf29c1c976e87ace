"""The model card: what a checkpoint is, for the person who finds it."""

from __future__ import annotations

from typing import Any

FEWEST_GROUPS = 9
"""Groups from which a 90 % interval says something about others (`gnn.training.calibration.interval_factor`)."""
HEADLINES = {
    "energy_mae_mev_per_atom": "energy MAE, meV/atom",
    "energy_rmse_mev_per_atom": "energy RMSE, meV/atom",
    "energy_mean_error_mev_per_atom": "energy mean signed error, meV/atom",
    "energy_rmse_mev": "energy RMSE, meV a structure",
    "force_mae_mev_per_angstrom": "force MAE, meV/Å",
    "force_rmse_mev_per_angstrom": "force RMSE, meV/Å",
    "stress_mae_gpa": "stress MAE, GPa",
}


def model_card(manifest: dict[str, Any]) -> str:
    """Markdown of a checkpoint's manifest (as JSON values)."""
    parts = [
        f"# {manifest['name']}",
        _summary(manifest),
        "## Intended use",
        _intended_use(manifest),
        "## Data",
        _data(manifest),
        "## Errors",
        _errors(manifest["metrics"]),
        "## How to load it",
        _loading(manifest),
        "## Training and cost",
        _cost(manifest),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(manifest: dict[str, Any]) -> str:
    model, producer = manifest["model"], manifest["producer"]
    members = "" if manifest["members"] == 1 else f", a committee of {manifest['members']}"
    return (
        f"A graph network potential of the family `{model['family']}`{members}: {model['channels']} channels, "
        f"{model['layers']} layers, correlation {model['correlation']}, cutoff {manifest['cutoff']:g} Å. "
        f"Written by Sluice {producer['sluice']} on {producer['created']}.\n\n"
        f"- Elements: {', '.join(manifest['elements'])}\n"
        f"- Levels of theory: {', '.join(f'`{theory}`' for theory in manifest['theories'])}\n"
        f"- Properties beside energy, forces and stress: {', '.join(model['properties']) or 'none'}\n"
        f"- Units: {'; '.join(f'{name} in {unit}' for name, unit in manifest['units'].items())}\n"
        f"- sha256 of the weights: `{manifest['sha256']}`"
    )


def _intended_use(manifest: dict[str, Any]) -> str:
    lines = [
        "Energies, forces and stresses of structures made of the elements above, near those it was trained on; "
        "relaxation and ranking of candidates before DFT. Its energies belong to the levels of theory above and must "
        "not be mixed with others. Far from its data it is wrong without warning: "
        + ("the spread of its members is a sign of it, not a bound." if manifest["members"] > 1 else "label and check.")
    ]
    if manifest["calibration"] is not None:
        lines.append(_uncertainty(manifest["calibration"]))
    return "\n\n".join([*lines, *_without_energies(manifest["data"]["labels"])])


def _without_energies(labels: list[str] | None) -> list[str]:
    """What a model that was not trained on energies is good for."""
    if labels is None or "energy" in labels:
        return []
    if {"forces", "stress"}.isdisjoint(labels):
        return ["It was trained without energies: use only its properties."]
    return [
        "It was trained on the slopes of energies, without energies: differences along a path of one structure mean "
        "something, energies of different structures cannot be compared."
    ]


def _uncertainty(calibration: dict[str, Any]) -> str:
    source = "the spread of its members" if calibration["kind"] == "committee" else "the rigidity of its last layer"
    text = f"Its uncertainty (eV/atom) comes from {source}, scaled on {calibration['n']} validation structures"
    if calibration["interval_90"] is None:
        return text + "."
    text += f"; {calibration['interval_90']:.3g} times it is the half width of a 90 % interval"
    held, groups = calibration["test_coverage_90"], calibration["groups"]
    text += "." if held is None else f", which held {100 * held:.0f} % of the test split."
    if groups is not None and groups < FEWEST_GROUPS:
        text += f" Those are of {groups} group{'s' * (groups > 1)} only: of structures unlike them it may hold fewer."
    return text


def _data(manifest: dict[str, Any]) -> str:
    data = manifest["data"]
    counts = ", ".join(f"{n} {split}" for split, n in data["split_counts"].items())
    lines = ["| data set | version | licence | content |", "| --- | --- | --- | --- |"]
    for item in data["inputs"]:
        licence = item["licence"] or "not stated"
        lines.append(f"| {item['dataset']} | {item['version']} | {licence} | `{item['content_digest'][:16]}` |")
    lines += ["", f"Structures: {counts} (split seed {data['split_seed']}). Graph set `{data['graph_set_id'][:16]}`."]
    return "\n".join(lines + _reference_lines(data["reference_sources"]))


def _reference_lines(sources: dict[str, dict[str, str]]) -> list[str]:
    kinds = {theory: sorted(set(elements.values())) for theory, elements in sources.items()}
    return [f"Reference energies of `{theory}`: {' and '.join(found)}." for theory, found in kinds.items() if found]


def _errors(metrics: dict[str, dict[str, Any]]) -> str:
    if not metrics:
        return "Not evaluated."
    splits = list(metrics)
    lines = ["| | " + " | ".join(splits) + " |", "| --- " * (len(splits) + 1) + "|"]
    for key, label in {"n_structures": "structures", **HEADLINES}.items():
        values = [metrics[split].get(key) for split in splits]
        if any(value is not None for value in values):
            lines.append(f"| {label} | " + " | ".join(_number(value) for value in values) + " |")
    names = sorted({name for split in splits for name in metrics[split].get("properties", {})})
    for name in names:
        found = [metrics[split].get("properties", {}).get(name) for split in splits]
        unit = next(item["unit"] for item in found if item)
        lines.append(f"| {name} MAE, {unit} | " + " | ".join(_number(i and i["mae"]) for i in found) + " |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _loading(manifest: dict[str, Any]) -> str:
    return (
        "```python\nfrom flows import load\n\n"
        f'atoms.calc = load("models:/{manifest["name"]}@champion").calculator()   # or the path of this folder\n```'
    )


def _cost(manifest: dict[str, Any]) -> str:
    cost = ", ".join(f"{name} {value:.4g}" for name, value in manifest["cost"].items())
    training = manifest["training"]
    minutes = training.get("minutes")
    budget = f"{minutes:g} minutes" if minutes else f"{training.get('epochs')} epochs"
    places = " and ".join(manifest["producer"]["trained_on"])
    spent = f"{budget} on {places}" if places else budget
    taken = ", ".join(f"{name} = {_plain(value)}" for name, value in manifest["taken"].items())
    return f"Budget {spent}; {cost or 'cost not recorded'}. The whole configuration is in `model.json`" + (
        f"; trained with {taken}." if taken else "."
    )


def _plain(value: int | float | str | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
