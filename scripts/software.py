"""s2tdpt train: from data to a parameter file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from rich.table import Table

from s2tdpt.golden.config import load_config, with_attention, with_neuron
from s2tdpt.scripts.options import command_line, console, data_option, folder_option, force_option, notes
from s2tdpt.scripts.output import check_folder, json_option, quiet, write_json
from s2tdpt.sw.names import CLOCKS, OPTIMIZERS, PRECISIONS, STDP_GRADIENTS
from s2tdpt.sw.settings import default_settings, parse_phase


@click.command(short_help="Float network to integer network to parameter file.")
@click.option(
    "--config",
    "-c",
    default="digits",
    show_default=True,
    metavar="NAME|FILE",
    help="Network: the name of a configuration, or a JSON file.",
)
@click.option(
    "--attention",
    metavar="KIND|JSON",
    help="Another attention than the configuration's: a kind, or an object with kind and options "
    "(docs/attentions.md). The kind is appended to the network's name.",
)
@click.option(
    "--neuron",
    metavar="KIND|JSON",
    help="Other neurons than the configuration's: a kind, or an object with kind and options "
    "(docs/neurons.md). The kind is appended to the network's name.",
)
@data_option
@folder_option
@click.option("--out", "-o", type=click.Path(path_type=Path), required=True, help="Run folder.")
@click.option("--weight-bits", type=click.Choice(["4", "8"]), help="Instead of the configuration's.")
@click.option("--seed", type=int, default=None, help="Initial weights, order, augmentation.")
@click.option("--float-epochs", type=int, default=None, help="Epochs of the float network.")
@click.option("--qat-epochs", type=int, default=None, help="Epochs of the integer network.")
@click.option("--batch-size", type=int, default=None, help="Images a step.")
@click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), default=None, help="Of the float network.")
@click.option("--lr", type=float, default=None, help="Peak learning rate of the float network.")
@click.option("--matrix-lr", type=float, default=None, help="Peak relative change of a matrix, by Muon.")
@click.option(
    "--phase",
    "phases",
    multiple=True,
    metavar="UNTIL:T[:SIZE]",
    help="T and image size up to this share of the float stage; repeat, the last UNTIL is 1.",
)
@click.option(
    "--initial-rate", type=float, default=None, help="Firing rate of all layers at first; 0: as is."
)
@click.option("--surrogate", type=float, default=None, help="Steepness of the surrogate gradient.")
@click.option("--norm-images", type=int, default=None, help="Images for fresh norm statistics; 0: averages.")
@click.option(
    "--teacher",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Residual network to distil from, or its logits that a run kept.",
)
@click.option("--distill", type=float, default=None, help="Share of the teacher in the loss.")
@click.option("--temperature", type=float, default=None, help="Of the softened predictions.")
@click.option("--qat-lr", type=float, default=None, help="Peak learning rate of the integer network.")
@click.option("--weight-decay", type=float, default=None, help="Of the float network's matrices and kernels.")
@click.option("--warmup-epochs", type=float, default=None, help="Linear warm-up of the float network.")
@click.option("--label-smoothing", type=float, default=None, help="0 to below 1.")
@click.option(
    "--gradient", type=click.Choice(list(STDP_GRADIENTS)), default=None, help="Gradient of the STDP kernel."
)
@click.option("--half-width", type=float, default=None, help="Half-width of the window surrogate, counts.")
@click.option("--rate-weight", type=float, default=None, help="Weight of the synaptic rate: fewer spikes.")
@click.option("--count-weight", type=float, default=None, help="Weight of the spread of q and k counts.")
@click.option("--augment/--no-augment", default=None, help="Move (digits) or flip and crop (CIFAR) images.")
@click.option("--crop-padding", type=int, default=None, help="Largest shift of CIFAR images, pixels.")
@click.option("--alternate-flip/--random-flip", default=None, help="Mirror every other epoch, or at random.")
@click.option(
    "--precision", type=click.Choice(list(PRECISIONS)), default=None, help="Layers of the float network."
)
@click.option(
    "--qat-precision",
    type=click.Choice(list(PRECISIONS)),
    default=None,
    help="Layers of the integer network, in training.",
)
@click.option("--fused/--no-fused", default=None, help="Neurons as compiled kernels.")
@click.option("--ema", type=float, default=None, help="Decay of the weights' moving average; 0: none.")
@click.option("--randaugment", type=float, default=None, help="Magnitude 0..30 of RandAugment; 0: none.")
@click.option("--erasing", type=float, default=None, help="Probability of random erasing.")
@click.option("--mixup", type=float, default=None, help="Alpha of mixup (half of the float stage); 0: none.")
@click.option(
    "--budget-minutes",
    type=float,
    default=None,
    help="Time for both stages; the schedule is stretched to end with it.",
)
@click.option(
    "--budget-clock", type=click.Choice(list(CLOCKS)), default=None, help="Time, or this process's CPU time."
)
@click.option("--qat-share", type=float, default=None, help="Part of the budget for the integer network.")
@click.option("--monitor-images", type=int, default=None, help="Test images tried after an epoch; 0: all.")
@click.option("--threads", type=int, default=None, help="CPU threads; 0 for torch's own choice.")
@click.option(
    "--float-checkpoint",
    metavar="NAME|FILE",
    help="Quantise this finished float stage, or the integers of a parameter file, instead of training.",
)
@click.option(
    "--start",
    metavar="NAME|FILE",
    help="Begin with the weights of a finished float stage or of a parameter file; its T may differ.",
)
@click.option("--float-only", is_flag=True, help="End with the float network.")
@click.option("--resume", is_flag=True, help="Continue the run in --out, bit-identically.")
@click.option("--tensorboard", is_flag=True, help="Also write TensorBoard logs.")
@click.option("--stop-after", type=click.IntRange(1), help="Stop each stage after so many epochs.")
@force_option
@json_option
def train(
    config,
    attention,
    neuron,
    data,
    data_dir,
    out,
    weight_bits,
    float_checkpoint,
    start,
    teacher,
    float_only,
    phases,
    resume,
    tensorboard,
    stop_after,
    force,
    json_path,
    **chosen,
) -> None:
    """Train a network: float, then quantised in its own integer arithmetic, then export.

    The result is the folder --out with checkpoints, CSV logs and CONFIG.safetensors, the integers that
    `evaluate`, `generate` and `cosim` take. Those are checked against the golden
    model before they are written. Where an option is not given, the data set's own setting counts.

    \b
    Examples:
      s2tdpt train --out runs/digits                        (minutes on two CPU cores)
      s2tdpt train --out runs/digits --weight-bits 4 --float-checkpoint runs/digits/float.safetensors
      s2tdpt train -c s2tdpt-4-384 --data cifar10 --data-dir ~/data --out runs/cifar10
      s2tdpt train -c s2tdpt-4-384 --data cifar10 --data-dir ~/data --out runs/hour --budget-minutes 60
      torchrun --nproc-per-node 8 -m scripts.cli train -c s2tdpt-4-384 --data cifar10 ...
    """
    from s2tdpt.sw.datasets import load_dataset
    from s2tdpt.sw.distributed import is_first
    from s2tdpt.sw.train import train_pipeline

    network = load_config(config)
    if attention is not None:
        network = with_attention(network, attention)
    if neuron is not None:
        network = with_neuron(network, neuron)
    if weight_bits is not None:
        network = network.model_copy(update={"weight_bits": int(weight_bits)})
    chosen["phases"] = tuple(map(parse_phase, phases)) or None
    settings = replace(default_settings(data), **{k: v for k, v in chosen.items() if v is not None})
    check_folder(out)
    dataset = load_dataset(data, data_dir)
    report = train_pipeline(
        network,
        dataset,
        settings,
        out,
        resume=resume,
        float_checkpoint=float_checkpoint,
        start=start,
        teacher=teacher,
        float_only=float_only,
        command=command_line(),
        console=notes,
        tensorboard=tensorboard,
        stop_after=stop_after,
        force=force,
    )
    if report.float_result.interrupted or (report.qat_result and report.qat_result.interrupted):
        click.echo("Interrupted; everything is saved; continue with --resume.", err=True)
        raise click.exceptions.Exit(130)
    if not is_first():
        return
    result = {
        "float_accuracy": report.float_accuracy,
        "qat_accuracy": report.qat_result.evaluation.accuracy if report.qat_result else None,
        "integer_accuracy": report.integer_accuracy,
        "test_images": report.test_images,
        "params": str(report.params_path) if report.params_path else None,
        "firing_rates": report.qat_result.evaluation.rates if report.qat_result else None,
        "synaptic_rate": report.qat_result.evaluation.synaptic_rate if report.qat_result else None,
    }
    if json_path is not None:
        write_json(json_path, result)
    if quiet(json_path):
        return
    table = Table(title=f"{network.name} on {dataset.name}")
    table.add_column("network")
    table.add_column("accuracy", justify="right")
    for name in ("float", "qat", "integer"):
        value = result[f"{name}_accuracy"]
        table.add_row(name, "-" if value is None else f"{100 * value:.2f} %")
    console.print(table)
    if report.params_path:
        click.echo(f"Parameter file: {report.params_path}")
    elif float_only and report.float_result.finished:
        click.echo(f"The float network is in {out}; quantise it with --float-checkpoint.")
    else:
        click.echo("Stopped; continue with --resume.")
