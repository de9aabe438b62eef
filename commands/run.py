"""`ernie run`: ask a model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ernie_cli import options


def _sampling(help: str, **more: Any) -> Any:
    return typer.Option(help=help, rich_help_panel="Sampling", **more)


def _graph(help: str) -> Any:
    return typer.Option(help=help, rich_help_panel="Graph models", show_default=False)


def run(
    model: Annotated[str, typer.Argument(help="A model folder, or `ernie-4.5-nano`.", show_default=False)],
    prompt: Annotated[str | None, typer.Argument(help="What to ask; nothing or `-`: standard input.", show_default=False)] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Talk in turns; on a pipe, one message per line.")] = False,
    system: Annotated[str | None, typer.Option(help="System text of the conversation.", show_default=False)] = None,
    raw: Annotated[bool, typer.Option("--raw", help="No chat template: the prompt as it is, control tokens and all.")] = False,
    prompt_ids: Annotated[str | None, typer.Option(help="JSON file of token ids to take as the prompt.", show_default=False)] = None,
    batch: Annotated[
        str | None, typer.Option(help="JSONL file: `prompt`, `messages` or `prompt_ids` per line.", show_default=False)
    ] = None,
    inputs: Annotated[str | None, _graph("Run a graph model on the arrays of this .npz, once; -o takes the outputs.")] = None,
    reference: Annotated[str | None, _graph("Compare the outputs with the arrays of this .npz.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="How many prompts of --batch run at a time.")] = 4,
    out: options.Out = None,
    max_tokens: Annotated[int, typer.Option(help="Most tokens of a reply.")] = 512,
    stop: Annotated[list[str] | None, typer.Option(help="End the reply before this text; repeatable.", show_default=False)] = None,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Go on where the model would end.")] = False,
    context: Annotated[int | None, typer.Option(help="Most tokens of prompt and reply together.", show_default="the backend's")] = None,
    temperature: Annotated[float | None, _sampling("0: the likeliest token.", show_default="0; 1 with top-k, top-p or min-p")] = None,
    top_k: Annotated[int, _sampling("Choose among the k likeliest; 0: off.")] = 0,
    top_p: Annotated[float, _sampling("Choose among the likeliest with this probability together.")] = 1.0,
    min_p: Annotated[float, _sampling("Drop tokens below this share of the likeliest one's probability.")] = 0.0,
    repetition_penalty: Annotated[float, _sampling("Above 1: avoid tokens that were used.")] = 1.0,
    seed: Annotated[int | None, _sampling("Repeat the choices of an earlier run.", show_default="random")] = None,
    backend: Annotated[str, typer.Option(help="onnxruntime, onnxruntime_tensorrt, tensorrt, torchscript, paddle, fake or auto.")] = "auto",
    device: options.DeviceName = "auto",
    threads: Annotated[int | None, typer.Option(min=1, max=512, help="CPU threads.", show_default="one per core")] = None,
) -> None:
    """Ask a model; on a terminal and without a prompt, talk with it.

    Checkpoints are converted to ONNX for their first run and kept in $ERNIE_CACHE (default ~/.cache/ernie).

    \b
    $ ernie run ernie-4.5-nano "12 + 30 = ?"
    $ echo "12 + 30 = ?" | ernie run ernie-4.5-nano --json
    $ ernie run ernie-4.5-nano --batch prompts.jsonl -o replies.jsonl
    $ ernie run resnet.onnx --inputs x.npz -o y.npz --reference y0.npz
    """
    if inputs is not None or reference is not None:
        from ernie_cli import graph_run, named

        graph_run.check_flags(inputs, {"PROMPT": prompt, "--prompt-ids": prompt_ids, "--batch": batch, "--chat": chat or None})
        return graph_run.run(
            named.resolve(model), str(inputs), out=out, reference=reference, backend=backend, device=device, threads=threads
        )
    from ernie_cli.generation import ask, batch_file
    from ernie_cli.generation import inputs as asked
    from ernie_cli.generation.prompt import read_ids
    from ernie_cli.generation.reply import Options
    from ernie_cli.generation.sampling import Sampling
    from ernie_cli.generation.speaker import opened

    asked.check_flags(prompt, prompt_ids, batch, chat, out)
    sampling = Sampling.of(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    how = Options(max_tokens, sampling, tuple(stop or ()), ignore_eos)
    where: dict[str, Any] = {"backend": backend, "device": device, "context": context, "threads": threads, "raw": raw, "system": system}
    if batch is not None:
        lines = batch_file.parse(asked.read(batch), batch)
        with opened(model, how, batch=min(batch_size, len(lines)), **where) as speaker:
            ask.batch(speaker, lines, out)
    elif prompt_ids is not None:
        ids = read_ids(asked.read(prompt_ids), prompt_ids)
        with opened(model, how, **where) as speaker:
            ask.once(speaker, speaker.prompter.ids(ids, prompt_ids))
    elif chat or (prompt is None and asked.at_terminal()):
        with opened(model, how, **where) as speaker:
            ask.talk(speaker, prompt)
    else:
        text = asked.read_prompt() if prompt in (None, "-") else str(prompt)
        with opened(model, how, **where) as speaker:
            ask.once(speaker, speaker.prompter.text(text))
    return None
