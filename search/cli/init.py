"""The command that writes a first space for a corpus."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from search.cli.corpus_options import Format, Ignore, Preset
from search.cli.options import Overwrite, console, print_notices, resolve_format

if TYPE_CHECKING:
    from collections.abc import Callable

    from search.study.new_space import Answers

__all__ = ["init"]

SHARES = {"train": 0.7, "dev": 0.15, "test": 0.15}


def init(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="Folder of an annotated corpus.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Space file to write.")] = Path("space.yaml"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept all defaults without questions.")] = False,
    format_: Format = "auto",
    preset: Preset = None,
    ignore: Ignore = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a first space for a corpus: five questions, sensible ranges and an estimated cost.

    A corpus without splits is divided at random into 70 % train, 15 % dev and 15 % test.
    """
    from clinie_core.data.corpora.loading import discover_splits, find_files, load_corpus
    from clinie_core.output_files import check_output_files, write_output
    from search.study.new_space import estimate_cost, render_space, suggest_answers

    check_output_files(output, overwrite=overwrite)
    if preset is None:
        format_ = resolve_format(corpus, format_, ignore or (), quiet=False)
    source = discover_splits(corpus.resolve(), format_, ignore or (), preset)
    if preset is None and "dev" not in find_files(source).splits:
        source = source.model_validate({**source.model_dump(exclude_defaults=True), "shares": SHARES})
    loaded = load_corpus(source, ("train", "dev"))
    print_notices(loaded.notices)
    answers = suggest_answers(loaded)
    if not yes:
        answers = _ask(answers)
    cost = estimate_cost(answers, loaded)
    study = re.sub(r"[^A-Za-z0-9._-]+", "-", source.title).strip("-._") or "study"
    write_output(output, render_space(study, source, answers, cost))
    out = console()
    sizes = ", ".join(f"{len(documents):,} {split}" for split, documents in loaded.splits.items())
    out.print(f"{output}: study {study}, {sizes} documents", soft_wrap=True, markup=False)
    out.print(
        f"estimated cost: {cost.trials} trials of at most {cost.epochs} epochs, {cost.minutes:.1f} minutes for all"
        f" epochs of one; about {cost.hours:.1f} hours with {cost.workers} at once (rough)",
        soft_wrap=True,
    )
    out.print(f"next: clinie plan {output}, then clinie search {output}", soft_wrap=True, markup=False)


def _ask(default: Answers) -> Answers:
    """Ask the five questions; a wrong answer is asked again."""
    from clinie_core.config import Task
    from clinie_core.finetuning import FINETUNING
    from search.config.objectives import METRICS
    from search.study.new_space import Answers

    def choose(text: str, default: str, allowed: tuple[str, ...]) -> str:
        def check(value: str) -> str:
            if value not in allowed:
                raise typer.BadParameter(f"{value!r}; allowed: {', '.join(allowed)}")
            return value

        return str(_prompt(text, default, check))

    def check_methods(value: str) -> tuple[str, ...]:
        names = _split(value)
        unknown = [name for name in names if name not in FINETUNING]
        if unknown or not names:
            found = repr(unknown[0]) if unknown else "nothing"
            raise typer.BadParameter(f"{found}; allowed: {', '.join(FINETUNING)}")
        return names

    def check_backbones(value: str) -> tuple[str, ...]:
        if not _split(value):
            raise typer.BadParameter("nothing; allowed: names of models on the Hugging Face Hub, or folders")
        return _split(value)

    def check_hours(value: str) -> float:
        try:
            hours = float(value)
        except ValueError:
            hours = 0.0
        if hours <= 0:
            raise typer.BadParameter(f"{value!r}; allowed: a number above 0")
        return hours

    tasks = get_args(Task)
    scores = tuple(name for name in METRICS if name.endswith("_f1"))
    task = choose(f"1. What to extract ({', '.join(tasks)})", default.task, tasks)
    backbones = _prompt("2. Backbones, separated by commas", ", ".join(default.backbones), check_backbones)
    methods = _prompt("3. Fine-tuning methods, separated by commas", ", ".join(default.methods), check_methods)
    objective = default.objective if task == default.task else "strict_f1"
    objective = choose("4. Score to maximize", objective, scores)
    hours = _prompt("5. Hours for the search", f"{default.hours:g}", check_hours)
    return Answers(task, backbones, methods, objective, hours)  # type: ignore[arg-type]  # one of the tasks


def _split(value: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))


def _prompt(text: str, default: str, check: Callable[[str], Any]) -> Any:
    return typer.prompt(text, default=default, value_proc=check)
