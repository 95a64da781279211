"""The classifier answers rightly at the width that it says, whatever the budget, the form of the image and the thread."""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

import sdk
from engines.backends import Pool
from engines.bundle import Bundle
from engines.errors import AwnError, BackendError, BudgetError, BundleError, DeviceMismatch, InputError, ProfileError, WidthError
from engines.model import Model
from engines.widths import parse_width
from sdk import AdaptiveClassifier, Budget, Decision, Frontier, Past, Prediction, Profile, Reading, Reason
from sdk import classifier as module
from sdk.profile import profile_path, write_profile
from tests.engines.test_bundle import change
from tests.networks import random_images, run

IMAGES = random_images(40, (8, 8, 1))


@pytest.fixture(scope="module")
def expected(small: Model, small_bundle: Bundle) -> dict[float, NDArray[np.float32]]:
    """Logits of `IMAGES` at each width, from the slices themselves."""
    return {float(width): run(small.slice(width), IMAGES)[0] for width in small_bundle.widths}


@pytest.fixture
def classifier(small_bundle: Bundle, small_profile: Profile) -> Iterator[AdaptiveClassifier]:
    with AdaptiveClassifier(small_bundle, profile=small_profile) as made:
        yield made


@pytest.fixture(autouse=True)
def _quick_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """First profiles take a moment instead of seconds."""
    monkeypatch.setattr("sdk.profile.MAX_ROUNDS", 5)


# What a prediction says


def test_every_field_of_a_prediction_at_every_width(
    classifier: AdaptiveClassifier, small: Model, expected: dict[float, NDArray[np.float32]]
) -> None:
    for width in classifier.widths:
        classifier.pin(width)
        for image, logits in zip(IMAGES[:5], expected[float(width)], strict=False):
            found = classifier(image)
            assert isinstance(found, Prediction)
            np.testing.assert_allclose(found.logits, logits, rtol=0, atol=1e-4)
            assert found.index == int(logits.argmax())
            assert found.label == small.metadata.labels[found.index]
            assert found.probability == pytest.approx(float(np.exp(logits[found.index]) / np.exp(logits).sum()), abs=1e-4)
            assert found.width == float(width)
            assert parse_width(found.width) == width
            assert found.reason is Reason.PINNED
            assert found.budget_met
            assert 0 < found.latency_ms < 10_000


def test_labels_and_widths_are_the_bundles(classifier: AdaptiveClassifier, small: Model, small_bundle: Bundle) -> None:
    assert classifier.labels == small.metadata.labels
    assert classifier.widths == tuple(small_bundle.widths)
    assert classifier.bundle is small_bundle


def test_the_probability_of_large_logits_does_not_overflow(classifier: AdaptiveClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.array([[1e4, 1e4, -1e4, 0, 0]], np.float32)
    monkeypatch.setattr(classifier, "_run", lambda images, exit: logits.copy())
    found = classifier(IMAGES[0])
    assert (found.index, found.probability) == (0, 0.5)


def test_logits_belong_to_the_caller(classifier: AdaptiveClassifier) -> None:
    """The pool's output is overwritten by the next call; what was handed out is not."""
    first = classifier(IMAGES[0])
    kept = first.logits.copy()
    batch = classifier(IMAGES[1:4])
    np.testing.assert_array_equal(first.logits, kept)
    assert not np.shares_memory(first.logits, classifier(IMAGES[0]).logits)
    for found in batch:
        found.logits[:] = 0
    np.testing.assert_array_equal(classifier(IMAGES[0]).logits, kept)


def test_a_prediction_is_a_record(classifier: AdaptiveClassifier) -> None:
    found = classifier(IMAGES[0])
    with pytest.raises(AttributeError):
        found.width = 1.0  # type: ignore[misc]


# Images and batches


def test_a_batch_gives_a_list_of_what_single_images_give(
    classifier: AdaptiveClassifier, expected: dict[float, NDArray[np.float32]]
) -> None:
    found = classifier(IMAGES[:7])
    assert [type(one) for one in found] == [Prediction] * 7
    for one, logits in zip(found, expected[1.0], strict=False):
        np.testing.assert_allclose(one.logits, logits, rtol=0, atol=1e-4)
        assert one.index == int(logits.argmax())
    assert len({one.latency_ms for one in found}) == 1
    assert [type(one) for one in classifier(IMAGES[:1])] == [Prediction]


@pytest.mark.parametrize("max_batch", [1, 3, 8, 40])
def test_a_batch_larger_than_the_pool_is_split(
    small_bundle: Bundle, small_profile: Profile, expected: dict[float, NDArray[np.float32]], max_batch: int
) -> None:
    with AdaptiveClassifier(small_bundle, profile=small_profile, max_batch=max_batch) as classifier:
        found = classifier(IMAGES)
        assert len(found) == 40
        np.testing.assert_allclose([one.logits for one in found], expected[1.0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("max_batch", [0, -1, 2.5])
def test_a_pool_of_no_images_is_refused(small_bundle: Bundle, max_batch: int) -> None:
    with pytest.raises(AwnError, match=f"max_batch must be a whole number of at least 1, got {max_batch}"):
        AdaptiveClassifier(small_bundle, max_batch=max_batch)


def test_forms_of_an_image_give_one_answer(classifier: AdaptiveClassifier, expected: dict[float, NDArray[np.float32]]) -> None:
    image = IMAGES[0]
    frame = np.zeros((16, 16), np.uint8)
    frame[::2, ::2] = image[..., 0]
    for form in (image, image[..., 0], frame[::2, ::2], np.asfortranarray(image)):
        np.testing.assert_allclose(classifier(form).logits, expected[1.0][0], rtol=0, atol=1e-4)
    (only,) = classifier(image[None])
    np.testing.assert_allclose(only.logits, expected[1.0][0], rtol=0, atol=1e-4)


def test_a_grey_image_goes_into_a_colour_network(tmp_path: Path) -> None:
    from engines.backends import load_backend
    from engines.build import build
    from tests.networks import small_model

    model = small_model(image=(8, 8, 3))
    bundle = build(model, [Fraction(1)], load_backend("onnxruntime"), tmp_path, grid="1.0")
    grey = IMAGES[0]
    wanted = run(model.slice(Fraction(1)), np.repeat(grey, 3, axis=2)[None])[0][0]
    with AdaptiveClassifier(bundle) as classifier:
        np.testing.assert_allclose(classifier(grey).logits, wanted, rtol=0, atol=1e-4)
        np.testing.assert_allclose(classifier(grey[..., 0]).logits, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "image", [np.zeros((9, 9, 1), np.uint8), np.zeros((8, 8, 1), np.float32), np.zeros((0, 8, 8, 1), np.uint8), "x.png"]
)
def test_a_wrong_image_is_refused_and_the_next_call_is_as_good_as_ever(classifier: AdaptiveClassifier, image: object) -> None:
    before = classifier(IMAGES[0]).logits
    with pytest.raises(InputError):
        classifier(image)
    np.testing.assert_array_equal(classifier(IMAGES[0]).logits, before)


# Budgets


def test_without_a_budget_the_most_accurate_width_runs(classifier: AdaptiveClassifier) -> None:
    found = classifier(IMAGES[0])
    assert (found.width, found.reason, found.budget_met) == (1.0, Reason.NO_LIMIT, True)


def test_a_budget_that_everything_fits_and_one_that_nothing_fits(classifier: AdaptiveClassifier) -> None:
    wide = classifier(IMAGES[0], budget=60_000)
    assert (wide.width, wide.reason, wide.budget_met) == (1.0, Reason.FITS, True)
    narrow = classifier(IMAGES[0], budget=1e-6)
    fastest = classifier.frontier.points[0]
    assert (narrow.width, narrow.reason, narrow.budget_met) == (float(fastest.width), Reason.NOTHING_FITS, False)


def test_a_budget_for_one_call_leaves_the_classifiers_own_alone(classifier: AdaptiveClassifier) -> None:
    classifier.budget = 60_000
    assert classifier.budget == Budget(latency_ms=60_000)
    assert classifier(IMAGES[0], budget=1e-6).reason is Reason.NOTHING_FITS
    assert classifier(IMAGES[0]).reason is Reason.FITS
    assert classifier(IMAGES[0], budget=Budget()).reason is Reason.NO_LIMIT
    assert classifier.budget == Budget(latency_ms=60_000)
    classifier.budget = None
    assert classifier(IMAGES[0]).reason is Reason.NO_LIMIT


def test_the_budget_of_the_constructor_is_that_of_the_calls(small_bundle: Bundle, small_profile: Profile) -> None:
    with AdaptiveClassifier(small_bundle, budget_ms=1e-6, profile=small_profile) as classifier:
        assert classifier.budget == Budget(latency_ms=1e-6)
        assert classifier(IMAGES[0]).reason is Reason.NOTHING_FITS


@pytest.mark.parametrize("budget", [math.nan, math.inf, 0, -1, True, "8"])
def test_a_budget_that_means_nothing_is_refused_everywhere_and_changes_nothing(
    small_bundle: Bundle, classifier: AdaptiveClassifier, budget: float
) -> None:
    classifier.budget = 60_000
    with pytest.raises(BudgetError):
        classifier.budget = budget
    with pytest.raises(BudgetError):
        classifier(IMAGES[0], budget=budget)
    with pytest.raises(BudgetError):
        AdaptiveClassifier(small_bundle, budget_ms=budget)
    assert classifier.budget == Budget(latency_ms=60_000)
    assert classifier(IMAGES[0]).reason is Reason.FITS


def test_the_governor_is_told_what_is_left_for_each_image(small_bundle: Bundle, small_profile: Profile) -> None:
    """A batch shares the budget of its call, and the governor gets the frontier, a reading and what was measured."""
    asked: list[tuple[Frontier, Budget, Reading, Past]] = []

    def governor(frontier: Frontier, budget: Budget, reading: Reading, past: Past) -> Decision:
        asked.append((frontier, budget, reading, past))
        return Decision(0, Reason.FITS)

    with AdaptiveClassifier(small_bundle, profile=small_profile, governor=governor) as classifier:
        asked.clear()
        classifier(IMAGES[0], budget=1000)
        classifier(IMAGES[:4], budget=1000)
        classifier(IMAGES[0])
        found = classifier(IMAGES[:4])
        assert [one.width for one in found] == [float(classifier.frontier.points[0].width)] * 4
        (one, four, free, _) = asked
        assert one[0] is classifier.frontier
        assert one[1].latency_ms == pytest.approx(1000, abs=50)
        assert four[1].latency_ms == pytest.approx(250, abs=20)
        assert free[1] == Budget()
        assert one[2] == Reading()
        assert one[3] is free[3]
        assert len(one[3].recent) == 2, "single images"
        assert four[3] is not one[3], "what batches take says little of single images"


def test_the_time_that_a_call_waits_counts_against_its_budget(small_bundle: Bundle, small_profile: Profile) -> None:
    left: list[float | None] = []

    def governor(frontier: Frontier, budget: Budget, reading: Reading, past: Past) -> Decision:
        left.append(budget.latency_ms)
        if budget.latency_ms is not None and len(left) == 1:
            time.sleep(0.2)
        return Decision(0, Reason.FITS)

    with AdaptiveClassifier(small_bundle, profile=small_profile, governor=governor) as classifier:
        left.clear()
        threads = [threading.Thread(target=lambda: classifier(IMAGES[0], budget=10_000)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    first, second = left
    assert first is not None
    assert second is not None
    assert 9_000 < second <= first - 100


# Pins


def test_a_pin_holds_whatever_the_budget_until_it_is_taken_out(classifier: AdaptiveClassifier) -> None:
    classifier.pin("0.3")
    found = classifier(IMAGES[0], budget=1e-6)
    assert (found.width, found.reason, found.budget_met) == (0.3, Reason.PINNED, False)
    assert classifier(IMAGES[0]).width == 0.3
    classifier.pin(None)
    assert classifier(IMAGES[0]).reason is Reason.NO_LIMIT


@pytest.mark.parametrize("width", [0.26, "0.99", Fraction(1, 3)])
def test_a_width_that_the_bundle_does_not_have_is_refused_and_the_pin_stays(classifier: AdaptiveClassifier, width: str | float) -> None:
    classifier.pin(0.5)
    with pytest.raises(WidthError, match=r"the bundle has no engine for width .*; its grid is 0\.25:1\.0:0\.05"):
        classifier.pin(width)
    assert classifier(IMAGES[0]).width == 0.5


@pytest.mark.parametrize("width", [0, 1.01, "wide", math.nan])
def test_what_is_no_width_cannot_be_pinned(classifier: AdaptiveClassifier, width: str | float) -> None:
    with pytest.raises(WidthError):
        classifier.pin(width)
    assert classifier(IMAGES[0]).reason is Reason.NO_LIMIT


# Life and death


def test_a_closed_classifier_refuses_calls_and_closes_twice(small_bundle: Bundle, small_profile: Profile) -> None:
    classifier = AdaptiveClassifier(small_bundle, profile=small_profile)
    with classifier as same:
        assert same is classifier
        classifier(IMAGES[0])
    classifier.close()
    with pytest.raises(AwnError, match="the classifier is closed"):
        classifier(IMAGES[0])


def test_an_error_inside_with_closes_the_classifier(small_bundle: Bundle, small_profile: Profile) -> None:
    classifier = AdaptiveClassifier(small_bundle, profile=small_profile)
    with pytest.raises(ZeroDivisionError), classifier:
        1 / 0  # noqa: B018
    with pytest.raises(AwnError, match="closed"):
        classifier(IMAGES[0])


def test_an_error_of_the_governor_is_the_callers_and_the_next_call_works(small_bundle: Bundle, small_profile: Profile) -> None:
    fail = False

    def governor(frontier: Frontier, budget: Budget, reading: Reading, past: Past) -> Decision:
        if fail:
            raise KeyError("mine")
        return Decision(0, Reason.FITS)

    with AdaptiveClassifier(small_bundle, profile=small_profile, governor=governor) as classifier:
        fail = True
        with pytest.raises(KeyError, match="mine"):
            classifier(IMAGES[0])
        fail = False
        assert classifier(IMAGES[0]).reason is Reason.FITS


def test_threads_with_pins_and_budgets_each_get_the_answer_of_the_width_that_it_names(
    classifier: AdaptiveClassifier, expected: dict[float, NDArray[np.float32]]
) -> None:
    """Eight threads, switched as often as can be: images, batches, pins that come and go, budgets that change."""
    errors: list[BaseException] = []
    widths: set[float] = set()

    def check(index: int, found: Prediction) -> None:
        widths.add(found.width)
        np.testing.assert_allclose(found.logits, expected[found.width][index], rtol=0, atol=1e-4)
        assert found.index == int(found.logits.argmax())

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        try:
            for _ in range(60):
                action, index = random.integers(6), int(random.integers(36))
                if action == 0:
                    classifier.pin(classifier.widths[int(random.integers(16))])
                elif action == 1:
                    classifier.pin(None)
                elif action == 2:
                    classifier.budget = float(random.choice([1e-3, 0.1, 1.0, 1000.0]))
                elif action == 3:
                    for offset, found in enumerate(classifier(IMAGES[index : index + 4], budget=float(random.choice([1e-3, 1000.0])))):
                        check(index + offset, found)
                else:
                    check(index, classifier(IMAGES[index]))
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert errors == []
    assert len(widths) >= 8


def test_closing_while_others_call_ends_their_calls_with_one_clear_error(small_bundle: Bundle, small_profile: Profile) -> None:
    classifier = AdaptiveClassifier(small_bundle, profile=small_profile)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while True:
                classifier(IMAGES[0])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    classifier.close()
    for thread in threads:
        thread.join(30)
    assert [str(error) for error in errors] == ["the classifier is closed"] * 3


# Bundles


def test_the_default_bundle_is_the_one_that_the_tool_builds(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWN_BUNDLE", str(own_bundle))
    with AdaptiveClassifier(budget_ms=8) as classifier:
        assert classifier.bundle.path == own_bundle
        assert classifier(IMAGES[0]).label.startswith("class ")


def test_without_a_bundle_the_error_is_the_command_that_builds_one() -> None:
    with pytest.raises(BundleError, match=r"build one: awn-build-engines --widths 0\.25:1\.0:0\.01"):
        AdaptiveClassifier(budget_ms=8)


def test_a_changed_byte_is_refused_by_name_before_the_first_call(own_bundle: Path) -> None:
    engine = own_bundle / Bundle(own_bundle).manifest.engines[-1].file.path
    data = engine.read_bytes()
    engine.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleError, match=str(engine)):
        AdaptiveClassifier(own_bundle)


def test_a_bundle_of_another_machine_is_refused(own_bundle: Path) -> None:
    change(own_bundle, fingerprint={"architecture": "pdp11"})
    with pytest.raises(DeviceMismatch, match="pdp11"):
        AdaptiveClassifier(own_bundle)


# Profiles


def test_the_first_profile_is_measured_and_kept_and_the_second_time_read(own_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "sdk")
    with AdaptiveClassifier(str(own_bundle)) as classifier:
        first, kept = classifier.profile, profile_path(classifier.bundle)
        assert "no profile of" in caplog.text
        assert "awn-profile-device" in caplog.text
    assert kept.is_file()
    caplog.clear()
    with AdaptiveClassifier(own_bundle) as classifier:
        assert classifier.profile == first
    assert caplog.text == ""


@pytest.mark.parametrize("kept", ["garbage", "another bundle", "another device", "newer format"])
def test_a_kept_profile_that_does_not_fit_is_measured_anew_with_a_warning(
    own_bundle: Path, small_profile: Profile, caplog: pytest.LogCaptureFixture, kept: str
) -> None:
    bundle = Bundle(own_bundle)
    path = profile_path(bundle)
    changed, words = {
        "garbage": (None, "is not a profile"),
        "another bundle": ({"bundle": "0" * 64}, "another bundle"),
        "another device": ({"device": {"processor": "an abacus"}}, "another device"),
        "newer format": ({"format": 99}, "has format 99"),
    }[kept]
    write_profile(path, msgspec.structs.replace(small_profile, **(changed or {})))
    if changed is None:
        path.write_bytes(b"garbage")
    caplog.set_level(logging.WARNING, "sdk")
    with AdaptiveClassifier(bundle) as classifier:
        assert words in caplog.text
        assert "no profile of" in caplog.text
        assert classifier.profile.bundle == bundle.manifest.sha256
    caplog.clear()
    with AdaptiveClassifier(bundle):
        assert caplog.text == "", "what was measured replaced it"


def test_a_state_directory_that_cannot_be_written_is_a_warning(
    own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A robot's root file system is often read-only. (A file in the place of the directory stops root too.)"""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    caplog.set_level(logging.WARNING, "sdk")
    with AdaptiveClassifier(own_bundle) as classifier:
        assert "the profile could not be kept at" in caplog.text
        assert classifier(IMAGES[0]).reason is Reason.NO_LIMIT


def test_a_profile_may_be_given_as_a_file_or_as_it_is(
    small_bundle: Bundle, small_profile: Profile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "sdk")
    path = tmp_path / "p.json"
    write_profile(path, small_profile)
    for given in (path, str(path), small_profile):
        with AdaptiveClassifier(small_bundle, profile=given) as classifier:
            assert classifier.profile == small_profile
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"bundle": "0" * 64}, "another bundle"), ({"device": {"processor": "an abacus"}}, "an abacus there"), ({"format": 99}, "format 99")],
)
def test_a_given_profile_that_does_not_fit_is_refused(
    small_bundle: Bundle, small_profile: Profile, tmp_path: Path, changed: dict[str, object], words: str
) -> None:
    path = tmp_path / "p.json"
    write_profile(path, msgspec.structs.replace(small_profile, **changed))
    with pytest.raises(ProfileError, match=words):
        AdaptiveClassifier(small_bundle, profile=path)


def test_the_log_is_the_packages_own() -> None:
    """An application turns it off or on by the name "sdk"; nothing is printed."""
    assert module.log is logging.getLogger("sdk")
    assert sdk.AdaptiveClassifier is AdaptiveClassifier


def test_a_profile_of_another_bundle_given_as_an_object_is_refused(small_bundle: Bundle, small_profile: Profile) -> None:
    """A profile with other exits would send calls to engines that are not there."""
    other = msgspec.structs.replace(small_profile, points=small_profile.points[:-1])
    with pytest.raises(ProfileError, match="the profile is of another bundle"):
        AdaptiveClassifier(small_bundle, profile=other)


def test_a_constructor_that_fails_frees_the_engines(small_bundle: Bundle, small_profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Pool] = []
    real = Bundle.open
    monkeypatch.setattr(Bundle, "open", lambda self, **options: opened.append(real(self, **options)) or opened[-1])

    other = msgspec.structs.replace(small_profile, points=())
    with pytest.raises(ProfileError):
        AdaptiveClassifier(small_bundle, profile=other)
    with pytest.raises(BackendError, match="closed"):
        opened[0].run(0)


@pytest.mark.parametrize("answer", [None, 3, (99, Reason.FITS), (-1, Reason.FITS), ("0", Reason.FITS)])
def test_a_governor_that_answers_wrongly_is_named(small_bundle: Bundle, small_profile: Profile, answer: object) -> None:
    with (
        AdaptiveClassifier(small_bundle, profile=small_profile, governor=lambda *_: answer) as classifier,
        pytest.raises(AwnError, match="the governor must give a Decision whose point is an index from 0 to"),
    ):
        classifier(IMAGES[0])


def test_what_cannot_govern_is_refused_at_once(small_bundle: Bundle, small_profile: Profile) -> None:
    with pytest.raises(AwnError, match="a governor must be callable, got 3"):
        AdaptiveClassifier(small_bundle, profile=small_profile, governor=3)  # type: ignore[arg-type]


def test_no_budget_for_one_call_is_no_limit(small_bundle: Bundle, small_profile: Profile) -> None:
    """None means the same for a call as for the classifier."""
    with AdaptiveClassifier(small_bundle, profile=small_profile, budget_ms=1e-6) as classifier:
        assert classifier(IMAGES[0]).reason is Reason.NOTHING_FITS
        assert classifier(IMAGES[0], budget=None).reason is Reason.NO_LIMIT
