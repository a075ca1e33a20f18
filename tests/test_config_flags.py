"""The flags of the original qlora.py: what they become, and what is said of those that become nothing."""

import shlex

import pytest
import torch
import typer
from transformers import get_scheduler

from qlora_tui import cli
from qlora_tui.config.contradictions import without_effect
from qlora_tui.config.overrides import resolve
from qlora_tui.config.qlora_flags import DECLARED, FLAGS
from qlora_tui.config.qlora_translation import translate
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import ConfigError, UsageError

GUANACO = """python qlora.py --model_name_or_path {base} --use_auth --output_dir ./output/guanaco --logging_steps 10
 --save_strategy steps --data_seed 42 --save_steps {save} --save_total_limit 40 --evaluation_strategy steps
 --eval_dataset_size 1024 --max_eval_samples 1000 --per_device_eval_batch_size 1 --max_new_tokens 32
 --dataloader_num_workers 3 --group_by_length --logging_strategy steps --remove_unused_columns False --do_train
 --do_eval --do_mmlu_eval --lora_r 64 --lora_alpha 16 --lora_modules all --double_quant --quant_type nf4 --bf16
 --bits 4 --warmup_ratio 0.03 --lr_scheduler_type constant --gradient_checkpointing --dataset oasst1
 --source_max_len 16 --target_max_len 512 --per_device_train_batch_size 1 --gradient_accumulation_steps 16
 --max_steps 1875 --eval_steps 187 --learning_rate {rate} --adam_beta2 0.999 --max_grad_norm 0.3
 --lora_dropout {dropout} --weight_decay 0.0 --seed 0"""


def _translated(line: str) -> RunConfig:
    return translate(line.split())[0]


def test_all_declared_arguments_are_known() -> None:
    assert len(DECLARED) == 60
    assert len({flag.name for flag in DECLARED}) == 60


@pytest.mark.parametrize(
    ("size", "base", "rate", "dropout", "save"),
    [
        ("7b", "huggyllama/llama-7b", "0.0002", "0.1", 500),
        ("13b", "huggyllama/llama-13b", "0.0002", "0.05", 500),
        ("33b", "huggyllama/llama-30b", "0.0001", "0.05", 200),
        ("65b", "huggyllama/llama-65b", "0.0001", "0.05", 200),
    ],
)
def test_the_guanaco_scripts_become_the_guanaco_presets(
    size: str, base: str, rate: str, dropout: str, save: int
) -> None:
    config, notes = translate(GUANACO.format(base=base, rate=rate, dropout=dropout, save=save).split())
    assert config == resolve(f"guanaco-{size}")
    assert without_effect(config) == []
    noted = {note.partition(":")[0] for note in notes}
    assert {"--lora_modules", "--warmup_ratio", "--do_mmlu_eval", "--max_new_tokens", "--use_auth_token"} <= noted


def test_without_flags_the_defaults_of_the_script_hold() -> None:
    config, notes = translate([])
    assert notes == []
    assert config.model.id == "EleutherAI/pythia-12b"
    assert (config.adapter.rank, config.adapter.alpha, config.adapter.dropout) == (64, 16, 0)
    assert config.training.max_steps == 10000
    assert config.training.optimizer == "paged_adamw_32bit"
    assert config.training.max_length_tokens == 1024 + 256
    assert config.training.recipe == "original"
    assert config.training.group_by_length
    assert config.quantization.compute_dtype == "float32"
    assert config.data.eval_rows == 0
    assert without_effect(config) == []


@pytest.mark.parametrize("name", [name for name, flag in FLAGS.items() if flag.note])
def test_a_flag_without_an_equivalent_is_named_with_the_reason(name: str) -> None:
    flag = FLAGS[name]
    value = {bool: "True", int: "3", float: "0.5", str: "x"}[flag.type]
    _, notes = translate([f"--{name}", value])
    assert notes == [f"--{name}: left out, {flag.note}"]


def test_a_dead_flag_is_called_dead() -> None:
    assert "dead" in translate(["--adam8bit"])[1][0]


@pytest.mark.parametrize("name", [name for name, flag in FLAGS.items() if flag.key])
def test_a_flag_with_a_setting_of_its_own_sets_it(name: str) -> None:
    flag = FLAGS[name]
    value, expected = {bool: ("True", True), int: ("33", 33), float: ("0.5", 0.5), str: ("x", "x")}[flag.type]
    if flag.default is True:
        value, expected = "False", False
    config, notes = translate([f"--{name}", value])
    table, _, setting = flag.key.partition(".")
    assert getattr(getattr(config, table), setting) == expected
    assert notes == []


def test_weights() -> None:
    assert _translated("--bits 8").quantization.kind == "8bit"
    assert _translated("--quant_type fp4 --no_double_quant").quantization.double_quantization is False
    assert _translated("--quant_type fp4").quantization.kind == "fp4"
    half = _translated("--fp16")
    assert (half.model.dtype, half.quantization.compute_dtype) == ("float32", "float16")
    full = _translated("--full_finetune --bits 16 --bf16")
    assert (full.adapter.kind, full.quantization.kind, full.model.dtype) == ("full", "none", "bfloat16")
    assert without_effect(full) == []


def test_data() -> None:
    assert _translated("--dataset chip2").data.format == "chip2"
    assert _translated("--dataset alpaca-clean").data.format == "alpaca"
    local = _translated("--dataset my.jsonl")
    assert (local.data.source, local.data.format) == ("my.jsonl", "input-output")
    assert _translated("--dataset my.jsonl --dataset_format alpaca").data.template == "alpaca"
    assert _translated("--train_on_source").training.loss_on == "everything"
    assert _translated("--dataset longform").training.loss_on == "responses"
    assert _translated("--do_eval --eval_dataset_size 7").data.eval_rows == 7
    assert _translated("--eval_dataset_size 7").data.eval_rows == 0


def test_schedule() -> None:
    config = _translated("--lr_scheduler_type cosine --max_steps -1 --num_train_epochs 2 --no_gradient_checkpointing")
    assert (config.training.schedule, config.training.warmup_ratio) == ("cosine", 0.03)
    assert (config.training.max_steps, config.training.epochs) == (None, 2)
    assert config.training.gradient_checkpointing == "off"
    assert _translated("--optim adamw_8bit").training.optimizer == "adamw_bnb_8bit"
    assert _translated("--report_to wandb").training.trackers == ["wandb"]


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("--lora_rr 8", "qlora.py has no flag --lora_rr", "'lora_r'"),
        ("--learning_rte=1e-4", "qlora.py has no flag --learning_rte", "'learning_rate'"),
        ("--lora 8", "ambiguous option: --lora could match --lora_r", ""),
        ("--bits four", "invalid int value: 'four'", ""),
        ("--do_eval maybe", "expected True or False, found 'maybe'", ""),
        ("train 64", "'train' belongs to no flag", ""),
    ],
)
def test_what_the_script_would_drop_or_refuse_is_an_error(line: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        translate(line.split())
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--bits 5", "--bits 5: expected 4, 8, 16 or 32"),
        ("--quant_type int4", "--quant_type int4: expected nf4 or fp4"),
        ("--full_finetune", "--full_finetune needs --bits 16"),
        ("--dataset vicuna", "never released"),
        ("--dataset_format sharegpt", "--dataset_format sharegpt: expected alpaca"),
        ("--lr_scheduler_type reduce_lr_on_plateau", "no equivalent, schedules depend on the step"),
        ("--lr_scheduler_type sine", "--lr_scheduler_type sine: no equivalent"),
        ("--report_to all", "--report_to all: no equivalent, it selects whatever is installed"),
        ("--report_to wandb comet_ml", "--report_to comet_ml: no equivalent"),
        ("--save_steps 0.1 --max_steps -1", "--save_steps 0.1: a fraction of all steps, whose number is unknown"),
        ("--save_steps 1.5", "--save_steps 1.5: expected a whole number of steps"),
        ("--save_steps 0", "--save_steps 0: expected a whole number of steps"),
        ("--label_smoothing_factor 0.1", "no equivalent, the loss here is cross-entropy without label smoothing"),
        ("--deepspeed zero3.json", "DeepSpeed is not supported"),
        ("--bf16 --fp16", "exclude each other"),
        ("--evaluation_strategy hourly", "--evaluation_strategy hourly: expected no, steps, epoch"),
        ("--optim adagrad", "--optim adagrad: no equivalent, it is not a supported optimizer"),
        ("--optim galore_adamw", "--optim galore_adamw: no equivalent"),
        ("--lora_r 0", "adapter.rank: found 0, expected greater than or equal to 1"),
    ],
)
def test_values_without_an_equivalent_are_an_error(line: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        translate(line.split())
    assert message in caught.value.message


def test_prediction_without_training_names_the_equivalent_command() -> None:
    """scripts/generate.sh of the original repository."""
    line = "--do_train False --do_eval False --do_predict True --predict_with_generate --dataset alpaca"
    with pytest.raises(ConfigError) as caught:
        translate(f"{line} --max_new_tokens 64 --do_sample --top_p 0.9 --max_eval_samples 10".split())
    assert "nothing would be trained" in caught.value.message
    command = "eval generate RUN alpaca --temperature 1 --top-p 0.9 --max-tokens 64 --limit 10"
    assert command in caught.value.hint
    words = shlex.split(command.replace("RUN", "mine"))
    with typer.main.get_command(cli.app).make_context("qlora-tui", words, resilient_parsing=True):
        pass
    with pytest.raises(ConfigError) as caught:
        translate(["--no_do_train", "--do_eval", "--do_mmlu_eval"])
    assert "eval loss RUN" in caught.value.hint and "eval mmlu RUN FILE" in caught.value.hint


def test_intervals_can_be_fractions_of_all_steps() -> None:
    training = _translated("--max_steps 1001 --save_steps 0.1 --evaluation_strategy steps --eval_steps 0.25").training
    assert (training.save_every_steps, training.eval_every_steps) == (101, 251)
    assert _translated("--evaluation_strategy steps").training.eval_every_steps == 10


def test_renamed_schedules_have_the_same_curve() -> None:
    for name, same in (("polynomial", "linear"), ("cosine_with_restarts", "cosine")):
        config, notes = translate(["--lr_scheduler_type", name])
        assert config.training.schedule == same
        assert any(name in note and same in note for note in notes)
        theirs, ours = ([_rate(kind, step) for step in range(100)] for kind in (name, same))
        assert ours == pytest.approx(theirs, abs=1e-6)


def _rate(kind: str, step: int) -> float:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_scheduler(kind, optimizer, num_warmup_steps=3, num_training_steps=100)
    return float(schedule.lr_lambdas[0](step))


def test_further_flags() -> None:
    assert _translated("--no_cuda").model.device == "cpu"
    assert _translated("--adafactor").training.optimizer == "adafactor"
    assert _translated("--report_to wandb tensorboard").training.trackers == ["wandb", "tensorboard"]
    assert _translated("--do_eval --evaluation_strategy steps --load_best_model_at_end").training.best_checkpoint
    for name in ("overwrite_output_dir", "tf32", "ddp_timeout", "push_to_hub", "logging_first_step", "eval_delay"):
        assert translate([f"--{name}", "1"])[1] == [f"--{name}: left out, {FLAGS[name].note}"]
    for flag in FLAGS.values():
        if flag.refusal:
            assert translate([])[0].training.recipe == "original"
            value = "9" if flag.type is not bool else "True"
            with pytest.raises(ConfigError, match=f"--{flag.name} .*no equivalent"):
                translate([f"--{flag.name}", value])
