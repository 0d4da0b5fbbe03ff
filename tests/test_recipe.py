"""Recipes: every mistake has one line, precedence holds, the history of a result is its recipe."""

import contextlib
import json
import re
import tomllib
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight import domains, io, recipe, scaling
from firstlight.domains import photography
from firstlight.errors import FrameError, RecipeError
from firstlight.frame import Frame, Observation, Unit
from firstlight.noise import Detector, Noise, Unmodelled

HERE = "plain_steps"
STEP = "expected a function whose first parameter is a Frame"


def brighten(
    frame: Frame, *, by: float = 1.0, times: int = 1, mode: str | None = None, window: tuple[int, int] = (1, 1)
) -> Frame:
    """Adds `by` [unit], `times` over. mode is not used; window is not used either."""
    params = {"by": by, "times": times, "mode": mode, "window": window}
    return frame.then(f"{HERE}.brighten", params, data=np.asarray(frame.data) + np.float32(by * times))


def add(frame: Frame, *, other: Frame, weight: float = 1.0) -> Frame:
    """Adds another frame, `weight` times."""
    name = other.observation.source or f"frame of shape {other.shape}"
    data = np.asarray(frame.data) + np.float32(weight) * np.asarray(other.data)
    return frame.then(f"{HERE}.add", {"other": name, "weight": weight}, data=data)


def given_detector(frame: Frame, *, detector: Detector) -> Frame:
    """Takes a detector."""
    return frame.then(f"{HERE}.given_detector", {"detector": detector.to_dict()}, noise=detector.noise())


def in_electrons(frame: Frame) -> Frame:
    """Refuses what is not in electrons."""
    frame.need("in_electrons", Unit.ELECTRON)
    return frame.then(f"{HERE}.in_electrons", {"found": 42})


def no_step(path: str) -> Frame:
    """Its first parameter is no Frame."""
    raise AssertionError(path)


def no_result(frame: Frame) -> float:
    """Measures; returns no Frame."""
    return float(np.mean(frame.data))


@pytest.fixture(autouse=True)
def third_party(monkeypatch):
    """These functions as an importable module."""
    import sys
    import types

    module = types.ModuleType(HERE)
    for function in (brighten, add, given_detector, in_electrons, no_step, no_result):
        setattr(module, function.__name__, function)
    monkeypatch.setitem(sys.modules, HERE, module)


def frame(value=10.0, shape=(12, 16), unit=Unit.ADU, **rest):
    data = np.full(shape, value, dtype=np.float32)
    return Frame(data, "YX", unit, Noise(0.5, 4.0, 2.0), **rest)


def text(*lines):
    return "\n".join(lines) + "\n"


BRIGHTEN = text("[[step]]", 'use = "plain_steps.brighten"', "by = 2.5", "times = 2")


def test_runs_in_order_and_leaves_its_input_alone():
    before = frame()
    after = recipe.run(recipe.load(BRIGHTEN + BRIGHTEN), before)
    assert np.all(after.data == 20)
    assert np.all(before.data == 10)
    assert before.history == ()
    assert [r.step for r in after.history] == ["plain_steps.brighten", "plain_steps.brighten", "recipe.run"]


# ---- broken recipes: the exact line that the user sees

FORM = [
    ("step = 3\n", "recipe: 'step' is 3, expected tables [[step]]"),
    ('domain = "astronomy"\n', 'recipe: holds no step; begin one with a line [[step]] and give it use = "..."'),
    ("step = []\n", 'recipe: holds no step; begin one with a line [[step]] and give it use = "..."'),
    (
        BRIGHTEN + "[[step]]\nby = 1\n",
        "recipe: step 2: 'use' is missing; give it use = \"calibrate.subtract_offset\" or another step",
    ),
    ("[[step]]\nuse = 3\n", "recipe: step 1: 'use' is 3, expected text"),
    ('[[step]]\nuse = "a.b"\ninputs = 1\n', "recipe: step 1: 'inputs' is 1, expected a table of sha256 texts by parameter"),
    ("domain = 1\n" + BRIGHTEN, "recipe: 'domain' is 1, expected text"),
    ('domian = "astronomy"\n' + BRIGHTEN, "recipe: unknown key 'domian'; did you mean 'domain'?"),
    ("[[step]\nuse = 1\n", "recipe: not valid TOML: Expected ']]' at the end of an array declaration (at line 1, column 7)"),
]


@pytest.mark.parametrize(("toml", "line"), FORM)
def test_faults_of_form(toml, line):
    with pytest.raises(RecipeError) as caught:
        recipe.load(toml)
    assert str(caught.value) == line


def test_faults_of_form_come_all_at_once():
    with pytest.raises(RecipeError) as caught:
        recipe.load('domian = "x"\npreset = 1\n[[step]]\nby = 2\n')
    assert len(str(caught.value).splitlines()) == 3


NO_STEP = [
    ("plain_steps.brihten", "unknown step 'plain_steps.brihten'; expected one of: calibrate.assign, "),
    ("calibrate.substract_offset", "unknown step 'calibrate.substract_offset'; did you mean 'calibrate.subtract_offset'?"),
    ("subtract_offset", "unknown step 'subtract_offset'; did you mean 'calibrate.subtract_offset'?"),
    ("../etc", "unknown step '../etc'; expected one of: "),
    ("plain_steps.no_step", "'plain_steps.no_step' is no step: its first parameter is 'path', " + STEP),
    ("plain_steps.no_result", "'plain_steps.no_result' is no step: it does not say that it returns a Frame, " + STEP),
    ("os.system", "'os.system' is no step: "),
    ("frame.Frame", "'frame.Frame' is no step: it is a type, " + STEP),
    ("calibrate.combine", "'calibrate.combine' is no step: its first parameter is 'frames', " + STEP),
]


@pytest.mark.parametrize(("use", "line"), NO_STEP)
def test_what_is_no_step(use, line):
    [found] = recipe.check(recipe.load(f'[[step]]\nuse = "{use}"\n'))
    assert str(found).startswith(f"recipe: step 1: {line}")


WRONG = [
    ("brighten", "bye = 1", "unknown parameter 'bye'; did you mean 'by'?"),
    ("brighten", 'by = "2"', "by is '2', expected a number"),
    ("brighten", "by = true", "by is True, expected a number"),
    ("brighten", "by = 2020-01-01", "by is datetime.date(2020, 1, 1), expected a number"),
    ("brighten", "times = 1.5", "times is 1.5, expected a whole number"),
    ("brighten", "mode = 1", "mode is 1, expected text"),
    ("brighten", "window = [1]", "window is [1], expected tuple[int, int]"),
    ("add", "", "parameter 'other' is missing; give a frame's file or name"),
    ("add", "other = 3", "other is 3, expected a frame's file or name"),
    ("add", "other = {a = 1}", "other is {'a': 1}, expected a frame's file or name"),
    ("add", 'other = "absent.npy"', "other: no input named 'absent.npy', no file absent.npy; give one of them"),
    ("add", 'other = ["a.npy", "b.npy"]', "other: 2 frames, expected one; average them with calibrate.master first"),
    ("given_detector", 'detector = "a.json"', "detector: no input named 'a.json', no file a.json; give one of them"),
    (
        "given_detector",
        "detector = { gain = 2.0 }",
        "detector: unknown keys [], missing keys ['read_noise']; expected gain, read_noise and optionally offset, saturation, "
        "gain_std, read_noise_std, offset_std, saturation_std, source, step",
    ),
    (
        "given_detector",
        'detector = { camera = "SPRAT", mode = 1 }',
        "detector: detector() got an unexpected keyword argument 'mode'; expected camera, setting, profile, read_noise, offset",
    ),
]


@pytest.mark.parametrize(("use", "body", "line"), WRONG)
def test_faults_of_content(use, body, line):
    [found] = recipe.check(recipe.load(f'[[step]]\nuse = "plain_steps.{use}"\n{body}\n'))
    assert str(found) == f"recipe: step 1 (plain_steps.{use}): {line}"


def test_all_problems_at_once_and_nothing_runs():
    body = '[[step]]\nuse = "plain_steps.brighten"\nbye = 1\ntimes = "x"\n[[step]]\nuse = "nothing"\n'
    body += '[[step]]\nuse = "plain_steps.add"\n'
    wrong = recipe.load('domain = "atronomy"\n' + body)
    found = recipe.check(wrong)
    assert [p.where for p in found] == [
        "recipe",
        "recipe: step 1 (plain_steps.brighten)",
        "recipe: step 1 (plain_steps.brighten)",
        "recipe: step 2",
        "recipe: step 3 (plain_steps.add)",
    ]
    with pytest.raises(RecipeError) as caught:
        recipe.run(wrong, frame())
    assert str(caught.value).splitlines() == [str(p) for p in found]


def test_missing_masters_are_named_once_and_in_order():
    found = [p.message for p in recipe.check(recipe.load("astronomy"), frame().replace(noise=Unmodelled("no gain")))]
    assert [m.split(":")[0] for m in found] == ["bias", "dark", "flat", "detector = 'camera'"]


def test_a_dry_run_tells_what_the_frame_contradicts():
    steps = recipe.load(BRIGHTEN + text("[[step]]", 'use = "plain_steps.in_electrons"'))
    line = "recipe: step 2 (plain_steps.in_electrons): in_electrons: got a frame in adu, expected electron"
    assert recipe.check(steps) == []
    assert [str(p) for p in recipe.check(steps, frame(shape=(200, 90)))] == [line]
    assert recipe.check(steps, frame(unit=Unit.ELECTRON)) == []
    with pytest.raises(RecipeError, match=re.escape(line)):
        recipe.run(steps, frame())


def test_an_unknown_recipe_or_file():
    with pytest.raises(RecipeError, match="unknown recipe 'astronmy'; did you mean 'astronomy'"):
        recipe.load("astronmy")
    with pytest.raises(RecipeError, match=re.escape("absent.toml: cannot be read (No such file or directory)")):
        recipe.load("absent.toml")


def test_a_recipe_file_that_is_no_text(tmp_path):
    (tmp_path / "r.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match=re.escape("r.toml: cannot be read (not UTF-8 text)")):
        recipe.load(tmp_path / "r.toml")


# ---- precedence: signature < domain row < TOML < flag


def test_precedence(monkeypatch):
    bare = 'domain = "photography"\n[[step]]\nuse = "plain_steps.brighten"\n'

    def added(toml, **flags):
        return float(recipe.run(recipe.load(toml), frame(0.0), **flags).data[0, 0])

    assert added(bare) == 1
    monkeypatch.setattr(photography, "STEP_DEFAULTS", {"plain_steps.brighten": {"by": 2.0}})
    assert added(bare) == 2
    assert added(bare + "by = 3.0\n") == 3
    assert added(bare + "by = 3.0\n", overrides={"1.by": 4.0}) == 4
    assert added(bare + "by = 3.0\n", overrides={"plain_steps.brighten.by": 5.0}) == 5
    steps = recipe.resolved(recipe.load(bare), overrides={"1.times": 3})
    assert dict(steps.steps[0].params) == {"by": 2.0, "times": 3}
    assert steps.domain is None


FLAGS = [
    ("3.by", "flag 3.by: names no step of recipe; expected plain_steps.brighten, or its number from 1 to 2"),
    ("plain_steps.brigten.by", "flag plain_steps.brigten.by: names no step of recipe; did you mean 'plain_steps.brighten'?"),
    ("plain_steps.brighten.by", "flag plain_steps.brighten.by: 2 steps are plain_steps.brighten; say which: 1.by or 2.by"),
    ("2.bye", "recipe: step 2 (plain_steps.brighten): unknown parameter 'bye'; did you mean 'by'?"),
]


@pytest.mark.parametrize(("key", "line"), FLAGS)
def test_wrong_flags(key, line):
    assert [str(p) for p in recipe.check(recipe.load(BRIGHTEN + BRIGHTEN), overrides={key: 1.0})] == [line]


@pytest.mark.parametrize(
    ("given", "pair"),
    [
        ("2.strength=1.5", ("2.strength", 1.5)),
        ("a.b = [1, 2]", ("a.b", [1, 2])),
        ("a.mode=clip", ("a.mode", "clip")),
        ('a.mode="1"', ("a.mode", "1")),
        ("a.file=x=y.fits", ("a.file", "x=y.fits")),
    ],
)
def test_flags_from_text(given, pair):
    assert recipe.flag(given) == pair


def test_a_flag_without_value():
    with pytest.raises(RecipeError, match=r"flag 'strength', expected STEP\.PARAMETER=VALUE"):
        recipe.flag("strength")


# ---- inputs


def stored(folder, name, value):
    io.write(frame(value), folder / name)
    return folder / name


ADD = text("[[step]]", 'use = "plain_steps.add"', 'other = "dark.npy"')


def test_a_file_is_found_beside_the_recipe_and_its_hash_kept(tmp_path):
    dark = stored(tmp_path, "dark.npy", 3.0)
    light = io.read(stored(tmp_path, "light.npy", 10.0))
    (tmp_path / "r.toml").write_text(ADD)
    after = recipe.run(recipe.load(tmp_path / "r.toml"), light)
    assert np.all(after.data == 13)
    import hashlib

    digest = {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / "light.npy", dark)}
    assert after.history[-1].inputs == digest


def test_an_input_by_name_is_a_frame_or_a_path(tmp_path):
    steps = recipe.load(ADD.replace("dark.npy", "dark"))
    assert recipe.check(steps) == []  # may be a sibling of a light not seen yet
    assert np.all(recipe.run(steps, frame(), inputs={"dark": frame(1.0)}).data == 11)
    assert np.all(recipe.run(steps, frame(), inputs={"dark": stored(tmp_path, "d.npy", 2.0)}).data == 12)
    [problem] = recipe.check(steps, frame())
    assert problem.message == "other: no input named 'dark', no file dark; give one of them"


def test_a_sibling_of_the_light(tmp_path, monkeypatch):
    light = io.read(stored(tmp_path, "light.npy", 10.0))
    monkeypatch.setattr(io, "read_set", lambda path: {"data": light, "dark": frame(5.0)})
    assert np.all(recipe.run(recipe.load(ADD.replace("dark.npy", "dark")), light).data == 15)
    [problem] = recipe.check(recipe.load(ADD.replace("dark.npy", "drak")), light)
    assert problem.message == "other: no input named 'drak', no file drak, and light.npy holds data, dark; give one of them"


@pytest.mark.parametrize("form", ["file", "table", "camera row", "own camera", "input"])
def test_a_detector_in_every_form(tmp_path, form):
    (tmp_path / "d.json").write_text(json.dumps({"gain": 2.45, "read_noise": 5.95, "offset": 915.8}))
    value = {
        "file": f"'{tmp_path / 'd.json'}'",
        "table": "{ gain = 2.45, read_noise = 5.95, offset = 915.8 }",
        "camera row": '{ camera = "SPRAT" }',
        "own camera": '"camera"',
        "input": '"mine"',
    }[form]
    steps = recipe.load(text("[[step]]", 'use = "plain_steps.given_detector"', f"detector = {value}"))
    light = frame(observation=Observation(instrument="SPRAT")).replace(noise=Unmodelled("no gain"))
    after = recipe.run(steps, light, inputs={"mine": Detector(2.45, 5.95, 915.8)})
    assert after.noise.offset == 915.8
    assert after.noise.a == pytest.approx(1 / 2.45)


def test_the_own_camera_must_be_known():
    steps = recipe.load(text("[[step]]", 'use = "plain_steps.given_detector"', 'detector = "camera"'))
    [problem] = recipe.check(steps, frame().replace(noise=Unmodelled("no gain")))
    assert problem.message == "detector = 'camera': no gain, and the file names no camera; give a file or a table"
    [problem] = recipe.check(steps, frame(unit=Unit.ELECTRON))
    assert problem.message == "detector = 'camera': got a frame in electron, expected adu"


def test_the_frames_own_noise_is_its_detector():
    steps = recipe.load(text("[[step]]", 'use = "plain_steps.given_detector"', 'detector = "camera"'))
    raw = Detector(2.0, 3.0, 100.0)
    after = recipe.run(steps, frame().replace(noise=raw.noise())).noise
    assert (after.a, after.b, after.offset) == pytest.approx((0.5, 2.25, 100.0))
    digital = Detector(2.0, 3.0, 100.0, step=4.0).noise()
    assert recipe.run(steps, frame().replace(noise=digital)).noise.b == pytest.approx(2.25 + 16 / 12)
    [problem] = recipe.check(steps, frame().replace(noise=Noise(0.0, 4.0)))
    assert "has no shot noise, so no gain" in problem.message


def test_a_header_without_offset_takes_the_bias_level(tmp_path):
    from astropy.io import fits

    rng = np.random.default_rng(3)
    for i, level in enumerate((300.0, 100.0, 100.0)):
        counts = Detector(2.0, 3.0, 100.0).noise().sample(np.full((64, 64), level), rng)
        card = fits.Header([("GAIN", 2.0), ("RDNOISE", 3.0), ("BUNIT", "adu"), ("EXPTIME", 10.0 if i == 0 else 0.0)])
        fits.writeto(tmp_path / f"{i}.fits", np.rint(counts).astype(np.uint16), card)
    steps = recipe.load(text("[[step]]", 'use = "calibrate.calibrate"', 'bias = "bias"', 'detector = "camera"'))
    light, bias = io.read(tmp_path / "0.fits"), [tmp_path / "1.fits", tmp_path / "2.fits"]
    after = recipe.run(steps, light, inputs={"bias": bias})
    assert after.unit == Unit.ELECTRON
    assert np.mean(after.data) == pytest.approx(400, abs=3)
    # two averaged bias frames of 3 e-: their noise is common to all frames that share them
    assert np.mean(after.noise.variance(np.full((64, 64), 400.0))) == pytest.approx(400 + 9 + 9 / 2, rel=0.02)
    again = recipe.run(recipe.load(recipe.from_history(after)), light)
    assert np.array_equal(again.data, after.data)
    [problem] = recipe.check(recipe.load(text("[[step]]", 'use = "calibrate.calibrate"', 'detector = "camera"')), light)
    assert problem.message == "detector = 'camera': the header states no offset; give a bias, or a detector's file or table"


# ---- history


def test_history_is_a_recipe(tmp_path):
    stored(tmp_path, "dark.npy", 3.0)
    light = io.read(stored(tmp_path, "light.npy", 10.0))
    (tmp_path / "r.toml").write_text(BRIGHTEN + ADD)
    after = recipe.run(recipe.load(tmp_path / "r.toml"), light)
    toml = recipe.from_history(after)
    again = recipe.run(recipe.load(toml), light)
    assert np.array_equal(again.data, after.data)
    assert recipe.from_history(again) == toml
    assert f"# run on {tmp_path / 'light.npy'}, sha256 " in toml
    stored(tmp_path, "dark.npy", 4.0)
    with pytest.raises(RecipeError, match=r"has sha256 .* the recipe says .*: not the same data"):
        recipe.run(recipe.load(toml), light)


def test_history_of_plain_calls(tmp_path):
    dark = io.read(stored(tmp_path, "dark.npy", 3.0))
    after = in_electrons(add(brighten(frame(unit=Unit.ELECTRON), by=2.0), other=dark))
    toml = recipe.from_history(after)
    assert "# found: found = 42" in toml
    again = recipe.run(recipe.load(toml), frame(unit=Unit.ELECTRON))
    assert np.array_equal(again.data, after.data)


def test_a_recipe_run_in_the_middle_of_a_history():
    after = brighten(recipe.run(recipe.load(BRIGHTEN), brighten(frame(), by=7.0)), by=8.0)
    steps = recipe.load(recipe.from_history(after)).steps
    assert [s.params["by"] for s in steps] == [7.0, 2.5, 8.0]


def test_history_that_no_recipe_repeats():
    after = add(frame(), other=frame()).then("somebody.elses")
    with pytest.raises(RecipeError) as caught:
        recipe.from_history(after)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("history line 1, plain_steps.add: other was a frame of shape (12, 16) that came from no file")
    assert lines[1].startswith("history line 2, somebody.elses: unknown step 'somebody.elses'")
    with pytest.raises(RecipeError, match="nothing to repeat"):
        recipe.from_history(frame())


# ---- TOML

words = st.text(st.characters(codec="utf-8"), max_size=12)
scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | words
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(words, v, max_size=3), max_leaves=6)
params = st.dictionaries(words.filter(lambda k: k not in ("use", "inputs")), values, max_size=4)
lines = st.builds(recipe.Step, words, params, st.dictionaries(words, words, max_size=2))
recipes = st.builds(recipe.Recipe, st.lists(lines, min_size=1, max_size=4).map(tuple), st.none() | words, st.none() | words)


@settings(max_examples=200)
@given(recipes)
def test_round_trip(given):
    assert recipe.load(recipe.dumps(given)) == given


@given(st.text(max_size=200))
def test_any_text_is_a_recipe_or_a_refusal(toml):
    with contextlib.suppress(RecipeError):  # anything else would fail the test
        recipe.load(toml + "\n")


# ---- steps and their parameters


def test_steps_are_public_functions_from_frame_to_frame():
    found = recipe.steps()
    assert {"calibrate.assign", "calibrate.subtract_offset", "calibrate.to_electrons", "scaling.scale"} <= set(found)
    assert not {"calibrate.combine", "calibrate.transfer", "scaling.Scaling"} & set(found)


@pytest.mark.parametrize("name", recipe.steps())
def test_every_parameter_has_a_kind_in_words(name):
    assert all(p.kind for p in recipe.parameters(name))


def test_parameters():
    by, times, mode, window = recipe.parameters("plain_steps.brighten")
    assert (by.name, by.annotation, by.default, by.kind, by.required) == ("by", float, 1.0, "a number", False)
    assert by.doc == "Adds `by` [unit], `times` over."
    assert (times.kind, mode.kind, window.default) == ("a whole number", "text", (1, 1))
    [other, _] = recipe.parameters("plain_steps.add")
    assert other.required


# ---- the shipped recipes and the real steps


@pytest.mark.parametrize("domain", domains.names())
def test_every_domain_ships_its_recipe(domain):
    steps = recipe.load(domains.default_recipe(domain))
    assert steps.domain == domain
    assert steps.steps[-1].use == ("restore.reconstruct" if domain == "tomography" else "restore.nonlocal_means")


@pytest.mark.parametrize("name", recipe.shipped())
def test_shipped_recipes_have_no_problem(name):
    assert recipe.check(recipe.load(name)) == []


CALIBRATED = [
    ("documented-sony", 100, 496.44, 0.0062055),
    ("documented-sony", 15871, 79351.44, 0.991893),
    ("documented-fuji", 15359, 27642.45, 0.345531),
    ("documented-hst", 0, -3.5, 0.0088235),
    ("documented-microscopy", 65535, 65533.5, 0.992932),
]


@pytest.mark.parametrize(("name", "adu", "electrons", "scaled"), CALIBRATED)
def test_documented_recipes_give_the_published_numbers_and_warn(name, adu, electrons, scaled):
    raw = Frame(np.full((4, 4), adu, dtype=np.uint16), "YX", Unit.ADU, Unmodelled("as published"))
    with pytest.warns(UserWarning, match="subtracts the read noise"):
        after = recipe.run(recipe.load(name), raw)
    assert after.data.dtype == np.float32
    assert after.data[0, 0] == pytest.approx(scaled, abs=5e-8 if scaled < 0.01 else 5e-7)
    steps = recipe.load(name).steps
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = recipe.run(recipe.Recipe(steps[:1], recipe.load(name).domain, recipe.load(name).preset), raw)
    assert first.data[0, 0] == np.float32(electrons)
    assert recipe.from_history(after)


def test_a_documented_run_is_undone_by_unscale():
    raw = Frame(np.arange(0, 16000, 125, dtype=np.uint16).reshape(8, 16), "YX", Unit.ADU, Noise(1 / 5, 1.0, 512.0))
    toml = 'domain = "photography"\npreset = "sony"\n[[step]]\nuse = "calibrate.documented"\n'
    both = toml + '[[step]]\nuse = "scaling.scale"\n[[step]]\nuse = "scaling.unscale"\nscale = 80000.0\n'
    with pytest.warns(UserWarning, match="subtracts the read noise"):
        once, back = recipe.run(recipe.load(toml), raw), recipe.run(recipe.load(both), raw)
    assert back.unit == Unit.ELECTRON
    assert np.all(np.abs(back.data - once.data) <= 2 * np.spacing(np.abs(once.data)))
    assert back.noise.a == pytest.approx(once.noise.a)
    assert back.noise.b == pytest.approx(once.noise.b)
    assert back.noise.offset == pytest.approx(once.noise.offset)


def test_scale_refuses_what_is_not_in_electrons():
    with pytest.raises(RecipeError, match=r"step 1 .scaling.scale.: scaling.scale: got a frame in adu, expected electron"):
        recipe.run(recipe.load('[[step]]\nuse = "scaling.scale"\nscale = 2.0\n'), frame())
    with pytest.raises(FrameError, match="scale 0"):
        scaling.scale(frame(unit=Unit.ELECTRON), scale=0)


def test_real_steps_and_their_history():
    rng = np.random.default_rng(5)
    raw = Detector(2.0, 3.0, 100.0).noise().sample(np.full((32, 48), 300.0), rng)
    light = Frame(raw.astype(np.float32), "YX", Unit.ADU, Unmodelled("no gain"))
    toml = '[[step]]\nuse = "calibrate.assign"\ndetector = { gain = 2.0, read_noise = 3.0, offset = 100.0 }\n'
    toml += '[[step]]\nuse = "calibrate.subtract_offset"\n[[step]]\nuse = "calibrate.to_electrons"\n'
    after = recipe.run(recipe.load(toml), light)
    assert after.unit == Unit.ELECTRON
    assert np.mean(after.data) == pytest.approx(400, abs=4)
    again = recipe.run(recipe.load(recipe.from_history(after)), light)
    assert np.array_equal(again.data, after.data)
    # what the steps wrote, without the line of the run, repeats it too
    plain = recipe.load(recipe.from_history(after.replace(history=after.history[:-1])))
    assert np.array_equal(recipe.run(plain, light).data, after.data)


def test_the_toml_of_a_recipe_is_what_people_write():
    steps = recipe.load(BRIGHTEN)
    assert recipe.dumps(steps) == BRIGHTEN
    assert tomllib.loads(recipe.dumps(steps))["step"][0]["times"] == 2


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The sample set and its manifest."""
    from firstlight.sample import write_sample

    folder = tmp_path_factory.mktemp("sample")
    return folder, {entry["name"]: entry for entry in write_sample(folder)["entries"]}


MICROSCOPE = {"gain": 0.46, "read_noise": 1.6, "offset": 100.0}  # the sample's own camera


@pytest.mark.parametrize("name", ["star field", "tubules", "cells", "chart (Bayer)", "xtrans (X-Trans)"])
def test_every_domains_recipe_restores_its_sample_and_repeats(sample, name):
    from firstlight import calibrate

    folder, entries = sample
    entry = entries[name]
    raw = io.read(folder / entry["lights"][0])
    raw = raw if raw.unit == Unit.ADU else io.assume(raw, unit="adu")
    row = MICROSCOPE
    light = calibrate.assign(raw, detector=Detector(**row)) if entry["domain"] == "microscopy" else raw
    inputs = {k: [folder / p for p in entry[k]] for k in ("bias", "dark", "flat") if k in entry}
    steps = recipe.load(domains.default_recipe(entry["domain"]))
    assert recipe.check(steps, light, inputs=inputs) == []
    restored = recipe.run(steps, light, inputs=inputs)
    calibrated = recipe.run(recipe.Recipe(steps.steps[:-1], steps.domain), light, inputs=inputs)
    truth = np.asarray(io.read(folder / entry["truth"]).data)
    good = np.ones(truth.shape, bool) if restored.flags is None else np.broadcast_to(restored.flags == 0, truth.shape)
    error = [np.sqrt(np.mean((np.asarray(f.data) - truth)[good] ** 2)) for f in (restored, calibrated)]
    assert error[0] < 0.75 * error[1]
    again = recipe.run(recipe.load(recipe.from_history(restored)), raw)
    assert np.array_equal(again.data, restored.data)


def test_the_scans_recipe_reconstructs_its_sample_and_repeats(sample):
    folder, entries = sample
    light = io.read(folder / entries["projections"]["lights"][0])
    steps = recipe.load("tomography")
    assert recipe.check(steps, light) == []
    volume = recipe.run(steps, light)
    assert (volume.axes, volume.unit, volume.shape) == ("ZYX", Unit.ATTENUATION, (16, 256, 256))
    assert 'also = ["white", "dark"]' in recipe.from_history(volume)
    again = recipe.run(recipe.load(recipe.from_history(volume)), light)
    assert np.array_equal(again.data, volume.data)


def test_inputs_go_through_a_step_too(sample):
    from firstlight import calibrate

    folder, entries = sample
    frames = io.read_set(folder / entries["projections"]["lights"][0])
    hit = np.array(frames["white"].data)
    hit[3, 5, 40] = 60000
    frames["white"] = frames["white"].replace(data=hit)
    text = """
[[step]]
use = "calibrate.remove_zingers"
also = ["white"]

[[step]]
use = "calibrate.transmission"
white = "white"
dark = "dark"
"""
    inputs = {"white": frames["white"], "dark": frames["dark"]}
    got = recipe.run(recipe.load(text), frames["data"], inputs=inputs)
    cleaned = calibrate.remove_zingers(frames["white"])
    want = calibrate.transmission(calibrate.remove_zingers(frames["data"]), white=cleaned, dark=frames["dark"])
    assert np.array_equal(got.data, want.data)
    assert np.abs(np.asarray(got.data)[:, 5, 40] / np.asarray(got.data)[:, 5, 41] - 1).max() < 0.5  # the hit is gone


def test_also_names_what_a_later_step_takes():
    first = '[[step]]\nuse = "calibrate.remove_zingers"\nalso = ["whit"]\n'
    text = first + '[[step]]\nuse = "calibrate.transmission"\nwhite = "white"\n'
    assert any(
        "also 'whit': no later step takes that input; did you mean 'white'?" in str(p) for p in recipe.check(recipe.load(text))
    )


def table(**keys):
    return recipe.Recipe((), reconstruction=keys)


def test_the_table_stands_for_the_last_step_of_the_shipped_recipe():
    text = """
[reconstruction]
algorithm = "fourierrec"
filter = "shepp"
gpu_devices = []
chunk_size = 64
dtype = "float32"
output_format = "zarr"
"""
    loaded = recipe.load(text)
    steps = recipe.resolved(loaded).steps
    shipped = recipe.load("tomography").steps
    assert [s.use for s in steps] == [s.use for s in shipped]
    assert dict(steps[-1].params) == {"filter": "shepp", "algorithm": "fourierrec"}
    assert recipe.options(loaded) == recipe.Options((), 64, "float32", ".zarr")
    assert recipe.load(recipe.dumps(loaded)) == loaded


def test_an_iterative_algorithm_is_its_step():
    assert recipe.resolved(table(algorithm="sirt")).steps[-1].use == "restore.sirt"
    assert recipe.resolved(table(algorithm="tv")).steps[-1].use == "restore.total_variation"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"algoritm": "fbp"}, "unknown key 'algoritm' of [reconstruction]; did you mean 'algorithm'?"),
        ({"algorithm": "gridrek"}, "algorithm 'gridrek'; did you mean 'gridrec'?"),
        ({"chunk_size": 0}, "chunk_size is 0, expected a number of detector rows from 1"),
        ({"dtype": "flaot32"}, "dtype 'flaot32'; did you mean 'float32'?"),
        ({"output_format": "zar"}, "output_format 'zar'; did you mean 'zarr'?"),
        ({"gpu_devices": "all"}, "gpu_devices is 'all', expected a list"),
        ({"gpu_devices": ["gpu"]}, "gpu_devices: device 'gpu'"),
    ],
)
def test_the_tables_mistakes_are_named_at_once(keys, said):
    problems = [str(p) for p in recipe.check(table(**keys, size="big"))]
    assert any(said in p for p in problems), problems
    assert any("size is 'big', expected a whole number" in p for p in problems) or "algorithm" in keys


def test_devices_are_cuda_or_processors():
    import torch

    assert recipe.options(table(gpu_devices=["cpu", "cpu"])).devices == ("cpu", "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(RecipeError, match="sees no CUDA"):
            recipe.options(table(gpu_devices=[0, 1]))


def test_a_step_and_a_table_that_both_reconstruct_are_refused():
    loaded = recipe.load('[[step]]\nuse = "restore.reconstruct"\n[reconstruction]\nalgorithm = "fbp"\n')
    assert "both reconstruct; keep one" in str(recipe.check(loaded)[0])


def test_importing_recipes_is_light():
    import subprocess
    import sys

    code = "import firstlight.recipe, sys; print({'pydantic', 'numba', 'astropy', 'torch', 'cv2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
