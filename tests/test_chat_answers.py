"""What the chat process computes: equal to what it replaces, whatever is reused, streamed or stopped."""

from dataclasses import replace

import pytest
import torch
from chat_material import keep_all_weights, make_run
from transformers import AutoTokenizer

from qlora_tui import starter
from qlora_tui.chat.protocol import Ask, Done, Message, Notice, Sampling, Token
from qlora_tui.config.data import DataSpec
from qlora_tui.data.rows import Turn
from qlora_tui.data.spans import Conversation
from qlora_tui.data.templates import resolve
from qlora_tui.engine import chat_memory, chat_model, generate, loading
from qlora_tui.engine.chat_answer import Answerer
from qlora_tui.engine.chat_memory import Memory
from qlora_tui.engine.chat_text import StreamedText, WithoutEnd, turn_end_ids
from qlora_tui.engine.prompts import Prompts
from qlora_tui.errors import ModelError, UsageError
from qlora_tui.models.identity import weights_fingerprint
from qlora_tui.runs.fingerprint import record

GREEDY = Sampling(temperature=0, max_tokens=12)
LONG = GREEDY.changed("max_tokens", "24")
QUESTIONS = ["Where does Anna live?", "What is the opposite of hot?", "How much is 3 plus 4?"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QLORA_TUI_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield


@pytest.fixture(scope="module")
def run(runs):
    return make_run("drawn")


@pytest.fixture(scope="module")
def notices():
    return []


@pytest.fixture(scope="module")
def loaded(run, notices):
    return chat_model.load(run, checkpoint=None, device="auto", on_stage=str, on_notice=notices.append)


@pytest.fixture
def answerer(loaded):
    return Answerer(loaded)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """A model this small gains nothing by more threads, and loses much when other tests want the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def messages(*contents: str, system: str = "") -> tuple[Message, ...]:
    turns = [Message(role=("user", "assistant")[n % 2], content=text) for n, text in enumerate(contents)]
    return tuple([Message(role="system", content=system)] * bool(system) + turns)


def tell(answerer, contents, *, side="adapter", sampling=GREEDY, seed=1, stop_after=None):
    """The text of an answer, its Done and the notices that came with it."""
    said: list = []

    def is_cancelled() -> bool:
        return stop_after is not None and sum(isinstance(item, Token) for item in said) >= stop_after

    ask = Ask(id=1, side=side, messages=contents, sampling=sampling, seed=seed)
    answerer.answer(ask, send=said.append, is_cancelled=is_cancelled)
    assert isinstance(said[-1], Done)
    text = "".join(item.text for item in said if isinstance(item, Token))
    return text, said[-1], [item.text for item in said if isinstance(item, Notice)]


def test_dequantized_weights_give_the_logits_of_the_four_bit_ones(run, loaded, notices):
    config = run.load_config()
    tokenizer = loaded.tokenizer
    four_bit = loading.load_model(config, chat_model.chat_settings(config), tokenizer)
    ids = torch.tensor([tokenizer("Anna lives in the valley.")["input_ids"]])
    # In training mode bitsandbytes keeps its plain CPU path; in eval mode some CPUs get a bfloat16 kernel.
    with torch.no_grad(), loaded.model.disable_adapter():
        expected = four_bit.train()(input_ids=ids).logits
        assert torch.equal(loaded.model(input_ids=ids).logits, expected)
    assert any("weights dequantized once for speed" in text for text in notices)


def test_without_memory_to_spare_the_four_bit_weights_are_kept(run, monkeypatch):
    monkeypatch.setattr(chat_model, "_SPARE", 1e9)
    notices: list[str] = []
    loaded = chat_model.load(run, checkpoint=None, device="cpu", on_stage=str, on_notice=notices.append)
    assert chat_model.dense_bytes(loaded.model, torch.float32) > 0
    assert any(text.startswith("answers will be slow") for text in notices)


def test_other_weights_of_the_base_are_said(run):
    """As after an update of the program, which may bring another starter."""

    def told(known: str) -> list[str]:
        record(run, model_fingerprint=known)
        notices: list[str] = []
        chat_model.load(run, checkpoint=None, device="cpu", on_stage=str, on_notice=notices.append)
        return [text for text in notices if "have changed since drawn was trained" in text]

    assert len(told("other")) == 1
    assert told(weights_fingerprint(run.load_config().model)) == []


def load(run, checkpoint=None):
    return chat_model.load(run, checkpoint=checkpoint, device="auto", on_stage=str, on_notice=str)


@pytest.mark.parametrize("kind", ["none", "fp4", "8bit"])
def test_other_ways_to_store_the_base_answer_too(kind, runs):
    settings = [f"quantization.kind={kind}", *(["quantization.double_quantization=false"] if kind != "fp4" else [])]
    answerer = Answerer(load(make_run(f"drawn-{kind}", *settings)))
    assert tell(answerer, messages(QUESTIONS[0]))[0] != tell(answerer, messages(QUESTIONS[0]), side="base")[0]


def test_a_checkpoint_answers_like_the_adapter_it_became(answerer, runs):
    earlier = Answerer(load(make_run("stopped", finished=False, checkpoint=5), checkpoint=5))
    assert tell(earlier, messages(QUESTIONS[0]))[0] == tell(answerer, messages(QUESTIONS[0]))[0]


def test_a_full_finetune_answers_without_a_base(runs):
    run = make_run(
        "all-weights", "adapter.kind=full", "quantization.kind=none", "quantization.double_quantization=false",
        finished=False,
    )  # fmt: skip
    keep_all_weights(run.adapter)
    answerer = Answerer(load(run))
    assert tell(answerer, messages(QUESTIONS[0]))[0]
    with pytest.raises(UsageError, match="no base"):
        tell(answerer, messages(QUESTIONS[0]), side="base")


def test_a_damaged_adapter_is_named(runs):
    run = make_run("damaged")
    weights = run.adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load(run)
    assert str(run.adapter) in caught.value.message


@pytest.mark.parametrize("side", ["adapter", "base"])
def test_answers_are_the_same_with_and_without_the_cache(answerer, loaded, side):
    history: list[str] = []
    reused = []
    for question in QUESTIONS:
        history.append(question)
        prompt = messages(*history, system="You are a guide.")
        text, done, _ = tell(answerer, prompt, side=side)
        assert tell(Answerer(loaded), prompt, side=side)[0] == text
        history.append(text)
        reused.append(done.reused_tokens)
    assert reused[0] == 0
    assert 0 < reused[1] < reused[2]


def test_an_edited_history_reuses_only_what_is_still_the_same(answerer, loaded):
    first, done, _ = tell(answerer, messages(QUESTIONS[0]))
    tell(answerer, messages(QUESTIONS[0], first, QUESTIONS[1]))
    changed = messages(QUESTIONS[0], "I do not know.", QUESTIONS[2])
    text, done, _ = tell(answerer, changed)
    assert 0 < done.reused_tokens < done.context_used_tokens
    assert text == tell(Answerer(loaded), changed)[0]


def test_base_and_adapter_take_turns_without_touching_each_other(answerer, loaded):
    for question in QUESTIONS:
        texts = {side: tell(answerer, messages(question), side=side)[0] for side in ("base", "adapter")}
        assert texts["base"] != texts["adapter"]
        for side, text in texts.items():
            assert text == tell(Answerer(loaded), messages(question), side=side)[0]


def test_a_long_prompt_is_computed_in_chunks_to_the_same_answer(answerer, loaded, monkeypatch):
    prompt = messages(" ".join(QUESTIONS * 3))
    whole = tell(Answerer(loaded), prompt)[0]
    monkeypatch.setattr(chat_memory, "PREFILL_TOKENS", 16)
    assert tell(answerer, prompt)[0] == whole
    text, done, _ = tell(answerer, messages("Or else: " + " ".join(QUESTIONS * 3)), stop_after=0)
    assert (text, done.reason, done.tokens) == ("", "cancelled", 0)
    assert tell(answerer, prompt)[0] == whole


def test_a_stopped_answer_is_the_beginning_of_the_whole_one_and_harms_no_later_one(answerer):
    whole, done, _ = tell(answerer, messages(QUESTIONS[0]), sampling=LONG)
    assert done.tokens > 5
    part, done, _ = tell(answerer, messages(QUESTIONS[0]), sampling=LONG, stop_after=3)
    assert (done.reason, done.tokens < len(whole)) == ("cancelled", True)
    assert part
    assert whole.startswith(part)
    assert tell(answerer, messages(QUESTIONS[0]), sampling=LONG)[0] == whole


def test_a_seed_decides_a_sampled_answer(answerer):
    def sampled(seed: int, temperature: float = 1.5) -> str:
        sampling = Sampling(temperature=temperature, top_p=1, max_tokens=6)
        return tell(answerer, messages(QUESTIONS[0]), sampling=sampling, seed=seed)[0]

    assert sampled(1) == sampled(1)
    assert len({sampled(seed) for seed in range(3)}) > 1
    assert len({sampled(seed, temperature=0) for seed in range(3)}) == 1


def test_settings_reach_the_choice_of_tokens(answerer):
    greedy = tell(answerer, messages(QUESTIONS[0]), sampling=LONG)[0]
    only_one = Sampling(temperature=3, top_p=1, top_k=1, max_tokens=24)
    assert tell(answerer, messages(QUESTIONS[0]), sampling=only_one)[0] == greedy
    no_repeats = LONG.changed("repetition_penalty", "5")
    assert tell(answerer, messages(QUESTIONS[0]), sampling=no_repeats)[0] != greedy
    _, done, _ = tell(answerer, messages(QUESTIONS[0]), sampling=LONG.changed("max_tokens", "2"))
    assert (done.reason, done.tokens) == ("length", 2)


def test_a_long_conversation_loses_its_oldest_turns_and_says_so(answerer):
    history = [text for number in range(30) for text in (f"{QUESTIONS[0]} {number}", "Anna lives in Oakford.")]
    _, done, notices = tell(answerer, messages(*history, QUESTIONS[1], system="You are a guide."))
    assert len(notices) == 1
    assert "turns are left out" in notices[0]
    assert done.context_used_tokens <= done.context_max_tokens == 512


def test_answers_stop_at_the_end_of_the_context(answerer, loaded):
    prompt = messages("Anna " * 300)
    size = len(loaded.tokenizer("Anna " * 300)["input_ids"])
    assert 300 < size < 512
    _, done, _ = tell(answerer, messages("Anna " * (300 * 500 // size)), sampling=Sampling(max_tokens=4000))
    assert done.context_used_tokens <= 512
    with pytest.raises(UsageError, match="the model's context has 512"):
        tell(answerer, messages("Anna " * 2000))
    assert tell(answerer, prompt)[1].tokens > 0


def test_conversation_refused_by_the_chat_template_is_an_error_with_a_hint(loaded, monkeypatch):
    refusing = "{% if 'secret' in messages[-1].content %}{{ raise_exception('no secrets') }}{% endif %}hello"
    monkeypatch.setattr(loaded.tokenizer, "chat_template", refusing)
    answerer = Answerer(replace(loaded, prompts=Prompts.of(loaded.tokenizer)))
    with pytest.raises(ModelError, match="no secrets") as caught:
        tell(answerer, messages("a secret", system="Be brief."))
    assert "/system" in caught.value.hint


def test_system_prompt_matches_training_without_system_turns(loaded, monkeypatch):
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    template = refusing + "{% for m in messages %}{{ m.role + ': ' + m.content + '; ' }}{% endfor %}"
    monkeypatch.setattr(loaded.tokenizer, "chat_template", template)
    turns = [Turn(role="system", content="Be brief."), Turn(role="user", content="hi")]
    prompts = Prompts.of(loaded.tokenizer)
    assert loaded.tokenizer.decode(prompts.ids(turns)).strip() == "user: Be brief.\n\nhi;"
    trained = Prompts.of(loaded.tokenizer, DataSpec(system_prompt="Be brief."))
    assert trained.ids(turns[1:]) == prompts.ids(turns)


def tiny(architecture: str, **settings):
    """A random two-layer model of a family whose cache is not the plain one."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        architecture, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, vocab_size=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, **settings,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize(
    ("architecture", "settings", "can_be_cut"),
    [
        ("gemma3_text", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}, True),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, False),
    ],
)
def test_memory_holds_for_models_with_windows_and_with_states(architecture, settings, can_be_cut):
    model = tiny(architecture, **settings)
    memory = Memory(model.config)
    first = list(range(3, 30))
    longer, other = [*first, 40, 41, 42], [*first[:20], 50, 51, 52, 53]
    reused = []
    for prompt in (first, longer, other):
        reused.append(memory.keep_common(prompt))
        with torch.inference_mode():
            past = memory.cache.get_seq_length()
            logits = model(torch.tensor([prompt[past:]]), past_key_values=memory.cache, use_cache=True).logits[0, -1]
            torch.testing.assert_close(logits, model(torch.tensor([prompt])).logits[0, -1], rtol=1e-4, atol=1e-5)
        memory.remember(prompt)
    assert reused == [0, 27, 20 if can_be_cut else 0]


def byte_fallback_tokenizer():
    """One that takes every byte that it has no word for as a token, and a word's space from its first character."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁a", "▁b", "a", "b", "c"]
    model = models.BPE({word: number for number, word in enumerate(words)}, [("▁", "a"), ("▁", "b")])
    model.byte_fallback, model.unk_token = True, "<unk>"
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.fixture(scope="module", params=["byte-level", "byte-fallback"])
def any_tokenizer(request):
    return (
        AutoTokenizer.from_pretrained(starter.MODEL_DIR) if request.param == "byte-level" else byte_fallback_tokenizer()
    )


def streamed(tokenizer, ids: list[int]) -> list[str]:
    pieces: list[str] = []
    stream = StreamedText(tokenizer, pieces.append)
    for token in ids:
        stream.add(token)
    stream.flush()
    return pieces


@pytest.mark.parametrize("text", ["a b c", "a 🦙 b", "日本語 b", "éa\u0301", "🧑‍🌾🧑‍🌾", "a\n\n b  c", "\U0010ffff."])
def test_characters_of_several_tokens_are_streamed_whole(any_tokenizer, text):
    ids = any_tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = streamed(any_tokenizer, ids)
    assert "".join(pieces) == any_tokenizer.decode(ids) == text
    assert "\ufffd" not in "".join(pieces)
    assert len(pieces) > 1


def test_characters_that_stay_broken_come_out_as_they_do_all_at_once(any_tokenizer):
    llama = any_tokenizer("🦙", add_special_tokens=False)["input_ids"][-4:]
    word = any_tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
    for ids in (llama[:2], llama[:3] + word, llama[:1] * 7 + word, llama[1:] + llama + word, llama[:2] + llama):
        assert "".join(streamed(any_tokenizer, ids)) == any_tokenizer.decode(ids)


@pytest.mark.parametrize("name", ["gemma", "llama-3", "phi", "chatml", "llama-2", "guanaco"])
def test_a_marker_that_is_several_tokens_is_no_part_of_the_answer(loaded, monkeypatch, name):
    """The model writes, token by token, what it was trained to write: its answer, the template's marker, the end."""
    tokenizer, model, said = loaded.tokenizer, loaded.model, "2 < 3, and <end it is."
    monkeypatch.setattr(tokenizer, "chat_template", resolve(name, tokenizer).portable)
    question = [Turn(role="user", content="q")]
    prompts = Prompts.of(tokenizer)
    prompt = prompts.ids(question)
    whole = tokenizer.apply_chat_template([*question, {"role": "assistant", "content": said}], tokenize=False)
    written = tokenizer(whole, add_special_tokens=False)["input_ids"][len(prompt) :]
    written = written[: written.index(tokenizer.eos_token_id) + 1]

    def write(*, input_ids, streamer=None, **_):
        if streamer is not None:
            for token in [input_ids, *torch.tensor(written)]:
                streamer.put(token)
        return torch.cat([input_ids, torch.tensor([written])], dim=1)

    monkeypatch.setattr(model, "generate", write)
    assert tell(Answerer(replace(loaded, prompts=prompts)), messages("q"))[0].strip() == said
    assert list(generate.answer(model, prompts, [Conversation(question)], max_tokens=9)) == [said]


def test_a_marker_that_is_cut_off_is_shown():
    shown: list[str] = []
    text = WithoutEnd("<|im_end|>", shown.append)
    for piece in ("a <|im", "_end|> b <|im_", "end"):
        text.add(piece)
    text.flush()
    assert "".join(shown) == "a <|im_end|> b <|im_end"


def test_the_token_that_the_template_writes_after_an_answer_ends_it():
    tokenizer = AutoTokenizer.from_pretrained(starter.MODEL_DIR)
    tokenizer.eos_token = "<|endoftext|>"
    assert turn_end_ids(tokenizer) == [tokenizer.convert_tokens_to_ids("<|im_end|>")]
