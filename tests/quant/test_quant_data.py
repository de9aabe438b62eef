"""Calibration data of every kind: what the model is fed, the same each time; and what is refused, in one line with a way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from text_models import write_model

from ernie_cli import nano
from ernie_cli.errors import ErnieError, InputError, UsageError
from ernie_cli.model import Model
from ernie_cli.quant.calibrate import text
from ernie_cli.quant.calibrate.data import open_data
from ernie_cli.quant.options import Options

NANO = Model.open(nano.path())
FLOAT, IDS = TensorProto.FLOAT, TensorProto.INT64


def graph(folder: Path, **inputs: tuple[int, list[Any]]) -> Model:
    """A model with these inputs; what it computes does not matter here."""
    folder.mkdir(parents=True, exist_ok=True)
    given = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    nodes = [helper.make_node("Shape", [name], [f"{name}_shape"]) for name in inputs]
    made = [helper.make_tensor_value_info(f"{name}_shape", IDS, None) for name in inputs]
    proto = helper.make_model(helper.make_graph(nodes, "g", given, made), opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(proto, folder / "model.onnx")
    return Model.open(folder)


@pytest.fixture
def images(tmp_path: Path) -> Model:
    return graph(tmp_path / "model", x=(FLOAT, ["N", 3, 8, 6]))


def lines(path: Path, *content: Any) -> str:
    path.write_text("\n".join(each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in content), "utf-8")
    return str(path)


def ids(data: Any) -> list[list[int]]:
    return [feeds["input_ids"].tolist()[0] for feeds in data]


# --- text -------------------------------------------------------------------------------------------------------------------

CHAT = "<|begin_of_sentence|>User: {}\nAssistant: "


@pytest.mark.parametrize(
    ("line", "pieces"),
    [
        ({"prompt": "What is 1 + 2?", "answer": "3"}, [CHAT.format("What is 1 + 2?"), "3", "</s>"]),
        ({"prompt": "1 + 2 =", "answer": "3", "form": "raw", "lang": "en"}, ["1 + 2 =", " 3", "</s>"]),
        ({"prompt": "1加2", "answer": "3", "form": "raw", "lang": "zh"}, ["1加2", "3", "</s>"]),
        ({"prompt": "What is 1 + 2?"}, [CHAT.format("What is 1 + 2?")]),
        ({"text": CHAT.format("你好") + "你好！</s>"}, [CHAT.format("你好") + "你好！</s>"]),
        ({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]}, [CHAT.format("hi"), "yes", "</s>"]),
        ({"messages": [{"role": "user", "content": "hi"}]}, [CHAT.format("hi")]),
    ],
)
def test_a_line_becomes_the_ids_that_the_model_was_trained_on(tmp_path, line, pieces):
    found = open_data(lines(tmp_path / "a.jsonl", line, line), NANO, Options())
    wanted = encoded(pieces)
    assert ids(found) == [wanted, wanted]


def encoded(pieces: list[str]) -> list[int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(nano.path() / "tokenizer.json"))
    return [token for piece in pieces for token in tokenizer.encode(piece, add_special_tokens=False).ids]


def test_prompt_ids_pass_as_they_are(tmp_path):
    assert ids(open_data(lines(tmp_path / "a.jsonl", {"prompt_ids": [5, 6, 7]}, {"text": "a"}), NANO, Options()))[0] == [5, 6, 7]


def test_ids_need_no_tokenizer(tmp_path):
    (tmp_path / "config.json").write_text('{"vocab_size": 9}')
    assert ids(open_data(lines(tmp_path / "a.jsonl", {"prompt_ids": [5]}, {"prompt_ids": [8]}), Model(tmp_path, "hf"), Options())) == [
        [5],
        [8],
    ]


def test_nano_brings_its_own_lines_and_others_do_not(tmp_path):
    found = open_data(None, NANO, Options())
    assert len(found) == 128 and "embedded" in found.said and all(text.ids for text in found.texts)
    with pytest.raises(UsageError) as err:
        open_data(None, Model(write_model(tmp_path / "other"), "hf", {}), Options())
    assert "--data" in err.value.hint


def test_paragraphs_of_a_txt(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\ufefffirst paragraph\nof two lines\r\n\r\nsecond\n\n\n" + "long " * 3000, "utf-8")
    found = open_data(str(path), NANO, Options())
    assert ids(found)[:2] == [encoded(["first paragraph\nof two lines"]), encoded(["second"])]
    assert len(found) > 3 and max(map(len, ids(found))) <= text.MOST_TOKENS


def test_texts_are_cut_to_the_context(tmp_path):
    folder = write_model(tmp_path / "model", max_position_embeddings=16)
    found = open_data(lines(tmp_path / "a.jsonl", {"text": "hello " * 100}, {"text": "hi"}), Model(folder, "hf", {}), Options())
    assert [len(row) for row in ids(found)] == [16, len(ids(found)[1])]


def test_samples_are_the_same_for_a_seed_and_keep_their_order(tmp_path):
    path = lines(tmp_path / "a.jsonl", *({"prompt_ids": [number + 1]} for number in range(200)))
    one, again, other = (open_data(path, NANO, Options(samples=20, seed=seed)) for seed in (0, 0, 1))
    assert ids(one) == ids(again) == sorted(ids(one)) and one.digest == again.digest
    assert ids(one) != ids(other) and one.digest != other.digest


def test_a_large_file_is_read_in_places(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "WHOLE_BYTES", 1000)
    path = lines(tmp_path / "a.jsonl", *({"prompt_ids": [number + 1]} for number in range(250)), "")
    found = open_data(path, NANO, Options(samples=10))
    assert len(found) == 10 and ids(found) == sorted(ids(found)) == ids(open_data(path, NANO, Options(samples=10)))
    Path(path).write_text("x" * 5000)
    with pytest.raises(InputError):
        open_data(path, NANO, Options())


def test_a_sparse_file_of_ten_gigabytes_takes_no_memory(tmp_path):
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(InputError, match="more than"):
        open_data(str(path), NANO, Options())


def test_encoders_get_masks_types_and_their_own_ends(tmp_path):
    shape = (IDS, ["batch", "sequence"])
    model = graph(tmp_path / "m", input_ids=shape, attention_mask=shape, token_type_ids=shape, position_ids=(TensorProto.INT32, ["b", 6]))
    write_model(model.folder)
    feeds = next(iter(open_data(lines(tmp_path / "a.jsonl", {"text": "hello"}, {"text": "hello world"}), model, Options())))
    row = feeds["input_ids"][0].tolist()
    named = {"<|begin_of_sentence|>": row[0], "<|end_of_sentence|>": row[-1]}
    assert set(named.values()) <= set(range(500)) and named["<|begin_of_sentence|>"] != named["<|end_of_sentence|>"]
    assert feeds["attention_mask"].tolist() == [[1] * len(row)] and feeds["token_type_ids"].tolist() == [[0] * len(row)]
    assert feeds["position_ids"].dtype == np.int32 and feeds["position_ids"].shape == (1, 6)


# --- split ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "share", "held"), [(8, 0.25, 2), (100, 0.25, 25), (2, 0.25, 1), (2, 0.9, 1), (3, 0.0001, 1)])
def test_split_holds_back_its_share_and_loses_nothing(tmp_path, count, share, held):
    path = lines(tmp_path / "a.jsonl", *({"prompt_ids": [number + 1]} for number in range(count)))
    whole = open_data(path, NANO, Options())
    kept, back = whole.split(share)
    assert len(back) == held and sorted(ids(kept) + ids(back)) == ids(whole)
    assert len({whole.digest, kept.digest, back.digest}) == 3 and kept.said.startswith(str(count - held))
    assert len(back.texts) == held


def test_one_sample_is_taken_with_a_warning(tmp_path, capsys):
    found = open_data(lines(tmp_path / "a.jsonl", {"text": "one"}), NANO, Options())
    assert [len(part) for part in found.split(0.25)] == [1, 1]
    assert "one calibration sample" in capsys.readouterr().err


# --- arrays -----------------------------------------------------------------------------------------------------------------


def npz(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


@pytest.mark.parametrize(
    ("shape", "given", "samples", "fed"),
    [
        (["N", 3, 4], (5, 3, 4), 5, (1, 3, 4)),
        ([1, 3, 4], (5, 3, 4), 5, (1, 3, 4)),
        ([2, 3, 4], (6, 3, 4), 3, (2, 3, 4)),
        ([2, 3, 4], (5, 2, 3, 4), 5, (2, 3, 4)),
        ([3, 4], (5, 3, 4), 5, (3, 4)),
        ([3, 4], (3, 4), 1, (3, 4)),
    ],
)
def test_the_first_axis_counts_samples(tmp_path, shape, given, samples, fed):
    array = np.arange(np.prod(given), dtype=np.float32).reshape(given)
    found = open_data(npz(tmp_path / "a.npz", x=array), graph(tmp_path / "m", x=(FLOAT, shape)), Options())
    rows = [feeds["x"] for feeds in found]
    assert (len(found), rows[0].shape) == (samples, fed)
    np.testing.assert_array_equal(np.stack(rows).reshape(-1), array.reshape(-1))


def test_several_arrays_a_shared_scalar_and_several_files(tmp_path):
    model = graph(tmp_path / "m", ids=(IDS, ["N", "S"]), lengths=(TensorProto.INT32, ["N"]), gain=(FLOAT, []))
    for number in range(3):
        npz(tmp_path / f"{number}.npz", ids=np.full((4, 5), number), lengths=np.arange(4), gain=np.float64(0.5), unused=np.zeros(2))
    found = open_data(str(tmp_path), model, Options())
    feeds = list(found)
    assert len(found) == 12 and [int(each["ids"][0, 0]) for each in feeds] == [0] * 4 + [1] * 4 + [2] * 4
    assert feeds[5]["lengths"].tolist() == [1] and feeds[5]["lengths"].dtype == np.int32 and feeds[0]["gain"].dtype == np.float32
    assert set(feeds[0]) == {"ids", "lengths", "gain"}
    assert len(open_data(str(tmp_path), model, Options(samples=7))) == 7


def test_a_decoder_takes_ids_as_rows(tmp_path):
    assert ids(open_data(npz(tmp_path / "a.npz", input_ids=np.array([[1, 2], [3, 4]])), NANO, Options())) == [[1, 2], [3, 4]]


def test_digests_follow_the_content(tmp_path, images):
    first = npz(tmp_path / "a.npz", x=np.zeros((2, 3, 8, 6)))
    one = open_data(first, images, Options()).digest
    assert open_data(npz(tmp_path / "b.npz", x=np.zeros((2, 3, 8, 6))), images, Options()).digest == one
    assert open_data(npz(tmp_path / "c.npz", x=np.ones((2, 3, 8, 6))), images, Options()).digest != one


# --- pictures ---------------------------------------------------------------------------------------------------------------


def picture(path: Path, size: tuple[int, int] = (6, 8), colour: tuple[int, ...] = (255, 0, 51), **more: Any) -> Path:
    Image = pytest.importorskip("PIL.Image", reason="pictures need pillow")
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.new("RGB", size, colour).save(path, **more)
    return path


@pytest.mark.parametrize("name", ["a.png", "b.JPG", "deep/er/c.jpeg"])
def test_pictures_are_decoded_scaled_and_laid_out(tmp_path, images, name):
    picture(tmp_path / "set" / name, (60, 80))
    found = open_data(str(tmp_path / "set"), images, Options(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0)))
    (feeds,) = found
    assert feeds["x"].shape == (1, 3, 8, 6) and feeds["x"].dtype == np.float32
    np.testing.assert_allclose(feeds["x"].mean(axis=(0, 2, 3)), [1, -1, 0.2], atol=0.02)


@pytest.mark.parametrize(
    ("shape", "layout", "fed"),
    [
        (["N", 3, 8, 6], "auto", (1, 3, 8, 6)),
        (["N", 8, 6, 3], "auto", (1, 8, 6, 3)),
        ([2, 3, 8, 6], "auto", (2, 3, 8, 6)),
        (["N", 1, 8, 6], "auto", (1, 1, 8, 6)),
        (["N", 8, 6, 1], "nhwc", (1, 8, 6, 1)),
        (["N", 3, "H", "W"], "auto", (1, 3, 96, 64)),
        ([None, None, None, None], "nhwc", (1, 96, 64, 3)),
    ],
)
def test_size_channels_and_layout_are_the_inputs(tmp_path, shape, layout, fed):
    for number in range(2):
        picture(tmp_path / "set" / f"{number}.png", (70, 90))
    found = open_data(str(tmp_path / "set"), graph(tmp_path / "m", x=(FLOAT, shape)), Options(layout=layout))
    assert next(iter(found))["x"].shape == fed


def test_bytes_stay_bytes_and_detectors_get_their_sizes(tmp_path):
    model = graph(tmp_path / "m", image=(TensorProto.UINT8, [1, 8, 6, 3]), im_shape=(FLOAT, ["N", 2]), scale_factor=(FLOAT, ["N", 2]))
    picture(tmp_path / "set" / "a.png")
    (feeds,) = open_data(str(tmp_path / "set"), model, Options())
    assert feeds["image"].dtype == np.uint8 and feeds["image"][0, 0, 0].tolist() == [255, 0, 51]
    assert feeds["im_shape"].tolist() == [[8, 6]] and feeds["scale_factor"].tolist() == [[1, 1]]


def test_what_the_folder_says_of_normalisation_is_used_and_silence_is_told(tmp_path, images, capsys):
    file = picture(tmp_path / "set" / "a.png")
    np.testing.assert_allclose(next(iter(open_data(str(file), images, Options())))["x"][0, :, 0, 0], [1, 0, 0.2], atol=1e-6)
    assert "--mean" in capsys.readouterr().err
    (images.folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    found = open_data(str(file), images, Options())
    np.testing.assert_allclose(next(iter(found))["x"][0, :, 0, 0], [1, -1, -0.6], atol=1e-6)
    assert "preprocessor_config.json" in found.said and "--mean" not in capsys.readouterr().err


# --- noise ------------------------------------------------------------------------------------------------------------------


def test_noise_says_that_it_is_noise(tmp_path, images):
    options = Options(random_calibration=True, samples=4)
    for model in (images, NANO):
        found = open_data(None, model, options)
        assert len(found) == 4 and "noise" in found.said and "not data" in found.said
        first, again = (next(iter(open_data(None, model, options))) for _ in range(2))
        assert all(np.array_equal(first[name], again[name]) for name in first)
        assert found.digest != open_data(None, model, Options(random_calibration=True, samples=4, seed=1)).digest
    assert max(max(row) for row in ids(open_data(None, NANO, options))) < NANO.config()["vocab_size"]


# --- refused ----------------------------------------------------------------------------------------------------------------

X = np.zeros((2, 3, 8, 6), np.float32)
NAN = np.where(np.arange(X.size).reshape(X.shape) == 7, np.nan, X).astype(np.float32)
#: (what, made by, for nano or a graph of pictures, class, words of message and hint)
REFUSED: list[tuple[str, Any, Model | None, type[ErnieError], list[str]]] = [
    ("missing", lambda d: str(d / "none.jsonl"), NANO, UsageError, ["no such file"]),
    ("suffix", lambda d: lines(d / "a.csv", "x"), NANO, UsageError, [".csv", "--data"]),
    ("no suffix", lambda d: lines(d / "a", "x"), NANO, UsageError, ["no suffix"]),
    ("empty folder", lambda d: str((d / "e").mkdir() or d / "e"), None, InputError, ["no pictures"]),
    ("empty jsonl", lambda d: lines(d / "a.jsonl"), NANO, InputError, ["empty", "one JSON object per line"]),
    ("blank jsonl", lambda d: lines(d / "a.jsonl", "", " ", ""), NANO, InputError, ["empty"]),
    ("empty txt", lambda d: lines(d / "a.txt"), NANO, InputError, ["empty"]),
    ("broken json", lambda d: lines(d / "a.jsonl", {"text": "a"}, '{"text": "b'), NANO, InputError, ["line 2", "not valid JSON"]),
    ("no object", lambda d: lines(d / "a.jsonl", "[1, 2]"), NANO, InputError, ["line 1", "prompt"]),
    ("deep json", lambda d: lines(d / "a.jsonl", "[" * 100_000), NANO, InputError, ["line 1"]),
    ("wrong keys", lambda d: lines(d / "a.jsonl", {"question": "a", "reply": "b"}), NANO, InputError, ["line 1", "'question'"]),
    ("two kinds", lambda d: lines(d / "a.jsonl", {"text": "a", "prompt": "b"}), NANO, InputError, ["line 1"]),
    ("text is no text", lambda d: lines(d / "a.jsonl", {"text": 5}), NANO, InputError, ["line 1", "no text"]),
    ("no such role", lambda d: lines(d / "a.jsonl", {"messages": [{"role": "x", "content": ""}]}), NANO, InputError, ["role"]),
    ("no text in it", lambda d: lines(d / "a.jsonl", {"text": ""}), NANO, InputError, ["line 1", "empty"]),
    ("ids beyond", lambda d: lines(d / "a.jsonl", {"prompt_ids": [99999]}), NANO, InputError, ["99999", "knows 0 to"]),
    ("half a surrogate", lambda d: lines(d / "a.jsonl", '{"text": "\\ud800"}'), NANO, InputError, ["surrogate"]),
    ("binary txt", lambda d: str((d / "a.txt").write_bytes(bytes(range(256))) and d / "a.txt"), NANO, InputError, ["UTF-8"]),
    ("zeros in txt", lambda d: str((d / "a.txt").write_bytes(bytes(9)) and d / "a.txt"), NANO, InputError, ["zero bytes"]),
    ("binary jsonl", lambda d: str((d / "a.jsonl").write_bytes(bytes(range(1, 256))) and d / "a.jsonl"), NANO, InputError, ["JSON"]),
    ("text for pictures", lambda d: lines(d / "a.jsonl", {"text": "a"}), None, ErnieError, ["tokenizer"]),
    ("wrong name", lambda d: npz(d / "a.npz", y=X), None, UsageError, ["no array named `x`", "it has y"]),
    ("wrong shape", lambda d: npz(d / "a.npz", x=X[:, :, 1:]), None, UsageError, ["[2, 3, 7, 6]", "[N, 3, 8, 6] expected"]),
    ("wrong rank", lambda d: npz(d / "a.npz", x=X[0, 0]), None, UsageError, ["[8, 6]"]),
    ("bytes for floats", lambda d: npz(d / "a.npz", x=X.astype(np.uint8)), None, UsageError, ["uint8", "255"]),
    ("words", lambda d: npz(d / "a.npz", x=np.full(X.shape, "a")), None, UsageError, ["float32 expected"]),
    ("no samples", lambda d: npz(d / "a.npz", x=X[:0]), None, InputError, ["empty"]),
    ("NaN", lambda d: npz(d / "a.npz", x=NAN), None, InputError, ["NaN", "sample 0"]),
    ("infinite", lambda d: npz(d / "a.npz", x=X + np.float32(np.inf)), None, InputError, ["infinite"]),
    ("objects", lambda d: npz(d / "a.npz", x=np.array([{}], object)), None, InputError, ["objects"]),
    ("no npz", lambda d: lines(d / "a.npz", "text"), None, InputError, ["not an .npz"]),
    ("half an npz", lambda d: cut(npz(d / "a.npz", x=X)), None, InputError, ["not an .npz"]),
    ("pictures for a decoder", lambda d: str(picture(d / "a.png")), NANO, UsageError, ["pictures do not"]),
    ("no picture", lambda d: lines(d / "a.png", "text"), None, InputError, ["a.png", "not a picture"]),
    ("16 bits", lambda d: deep(d / "a.png"), None, InputError, ["more than 8 bits"]),
    ("half a picture", lambda d: cut(str(picture(d / "a.png", (300, 300)))), None, InputError, ["not a picture"]),
]


def deep(path: Path) -> str:
    Image = pytest.importorskip("PIL.Image", reason="pictures need pillow")
    Image.fromarray(np.full((8, 6), 40_000, np.uint16)).save(path)
    return str(path)


def cut(path: str) -> str:
    Path(path).write_bytes(Path(path).read_bytes()[: Path(path).stat().st_size // 2])
    return path


@pytest.mark.parametrize(("make", "model", "kind", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refused_in_one_line_with_a_way_out(tmp_path, images, make, model, kind, words):
    with pytest.raises(kind) as err:
        list(open_data(make(tmp_path), model or images, Options()))
    said = f"{err.value.message} | {err.value.hint}"
    assert all(word in said for word in words), said
    assert "\n" not in said and err.value.hint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(mean=(0.5, 0.5), std=(1.0, 1.0)), "--mean: 2 numbers for 3 channels"),
        (Options(mean=(0.5,), std=(0.0,)), "not above 0"),
        (Options(layout="nhwc"), "--layout nchw"),
    ],
)
def test_options_that_do_not_fit_pictures_are_refused(tmp_path, images, options, words):
    with pytest.raises(UsageError) as err:
        open_data(str(picture(tmp_path / "a.png")), images, options)
    assert words in f"{err.value.message} {err.value.hint}"


def test_arrays_of_different_lengths_and_numbers_too_large_are_refused(tmp_path):
    model = graph(tmp_path / "m", a=(FLOAT, ["N", 2]), b=(TensorProto.INT32, ["N"]))
    with pytest.raises(UsageError, match="different numbers of samples: `a` 3, `b` 4"):
        open_data(npz(tmp_path / "a.npz", a=np.zeros((3, 2)), b=np.zeros(4, int)), model, Options())
    with pytest.raises(InputError, match="more than int32 can"):
        list(open_data(npz(tmp_path / "a.npz", a=np.zeros((1, 2)), b=np.array([1 << 40])), model, Options()))


def test_without_pillow_the_extra_is_named(tmp_path, images, monkeypatch):
    import sys

    file = str(picture(tmp_path / "a.png"))
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ErnieError) as err:
        open_data(file, images, Options())
    assert err.value.exit_code == 5 and "ernie-cli[images]" in err.value.hint
