"""`ernie eval`: how good a model is on texts, or how close to another model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ernie_cli import console


def eval(
    model: Annotated[str, typer.Argument(help="A model folder or file, or `ernie-4.5-nano`.", show_default=False)],
    data: Annotated[
        str | None,
        typer.Option(help="Texts (.jsonl, .txt); arrays (.npz) or a folder for other graphs.", show_default="nano: its held-out lines"),
    ] = None,
    against: Annotated[str | None, typer.Option(help="Compare with this model, as with the truth.", show_default=False)] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this one; repeatable. perplexity, exact-match, kl, top1; of other graphs cosine, snr, top1, max-abs.",
            show_default="all that can be had",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many texts or samples; of a .txt as often 1024 tokens.", show_default=False)
    ] = None,
    mean: Annotated[str | None, typer.Option(help="Of pictures, as 0.485,0.456,0.406.", show_default=False)] = None,
    std: Annotated[str | None, typer.Option(help="Of pictures.", show_default=False)] = None,
    report: Annotated[Path | None, typer.Option(help="Write the record into this file, as JSON.", show_default=False)] = None,
) -> None:
    """Measure a model: a language model on texts, any other graph against a second one.

    A line of texts is {"prompt": "…", "answer": "…"} or {"text": "…"} or {"messages": […]}. Answers are scored apart, and the
    model is asked to write them itself (greedily; right is what is the same to the letter). Every token counts alike.

    \b
    $ ernie eval ernie-4.5-nano
    ernie-4.5-nano, 407 texts of held-out lines of ernie-4.5-nano
                  tokens  perplexity
      answers     1,438   1.0400
      all tokens  5,798   2.4514
      exact match  97.54%, 397 of 407 answers
    $ ernie eval out/int4 --against out/onnx --data lines.jsonl
    $ ernie eval resnet-int8.onnx --against resnet.onnx --data photos.npz
    """
    import json

    from ernie_cli import named, route_text
    from ernie_cli.evaluate import table
    from ernie_cli.evaluate.evaluate import Question, evaluate
    from ernie_cli.model import Model
    from ernie_cli.quant.options import numbers
    from ernie_cli.staging import write_file

    route_text.check_report(report)
    asked = Question(data, tuple(metric or ()), limit, numbers("--mean", mean), numbers("--std", std))
    other = Model.open(named.resolve(against)) if against is not None else None
    record = evaluate(Model.open(named.resolve(model)), asked, against=other)
    record |= {"model": model, "against": against}
    if report is not None:
        write_file(report, json.dumps(console.finite(record), ensure_ascii=False, indent=2) + "\n")
        console.info(f"the full record is in {report}")
    console.result(None if console.settings.json else table.render(record, asked.metrics), data=record)
