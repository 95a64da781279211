"""A bundle is what the build wrote, byte for byte, or it is refused by name."""

from __future__ import annotations

import hashlib
import shutil
from fractions import Fraction
from pathlib import Path

import msgspec
import numpy as np
import platformdirs
import pytest

from engines import bundle as module
from engines.backends import load_backend
from engines.build import build
from engines.bundle import FORMAT, MANIFEST, Bundle, File, Manifest, default_path, write_manifest
from engines.errors import BackendError, BundleError, DeviceMismatch, WidthError
from engines.model import Model
from engines.widths import parse_grid
from tests.networks import random_images, run


def change(path: Path, **fields: object) -> None:
    """Write a manifest with other contents and a right checksum, as a build of some other version or device would."""
    write_manifest(path, msgspec.structs.replace(Bundle(path).manifest, **fields))


def rewrite(path: Path, old: bytes, new: bytes) -> None:
    """Replace text of a manifest and mend its checksum."""
    file = path / MANIFEST
    data = file.read_bytes()
    assert data.count(old) == 1
    data = data.replace(old, new)
    head = len(b'{\n  "sha256": "')
    blank = data[:head] + b"0" * 64 + data[head + 64 :]
    file.write_bytes(data[:head] + hashlib.sha256(blank).hexdigest().encode() + data[head + 64 :])


def files(path: Path) -> list[Path]:
    """Every file of a bundle that the build wrote."""
    return sorted(file for file in path.rglob("*") if file.is_file() and file.name != ".lock")


# What a bundle says and does


def test_a_bundle_knows_its_widths_engines_and_where_it_fits(small: Model, small_bundle: Bundle) -> None:
    m = small_bundle.manifest
    assert list(small_bundle.widths) == list(parse_grid("0.25:1.0:0.05"))
    assert (m.format, m.name, m.backend, m.precision, m.padding) == (FORMAT, "small", "onnxruntime", "fp32", 16)
    assert m.fingerprint == load_backend("onnxruntime").fingerprint()
    assert m.backend_version == load_backend("onnxruntime").version()
    assert m.labels == small.metadata.labels
    assert m.dimensions == (12, 24)
    assert m.accuracy_data == "random test"
    assert [entry.features for entry in m.widths] == [small.channels(width)[0] for width in small_bundle.widths]
    assert small_bundle.widths[Fraction(1, 2)].accuracy == pytest.approx(0.9)


def test_the_opened_pool_answers_as_the_slices(small: Model, small_bundle: Bundle) -> None:
    images = random_images(8, small.image)
    with small_bundle.open(max_batch=8) as pool:
        for width in small_bundle.widths:
            pool.images[:] = images
            pool.run(small_bundle.exit(width), 8)
            np.testing.assert_allclose(pool.logits, run(small.slice(width), images)[0], rtol=0, atol=1e-5)


def test_the_manifest_carries_the_hash_of_every_byte(own_bundle: Path) -> None:
    m = Bundle(own_bundle).manifest
    for file in [m.model, *(engine.file for engine in m.engines)]:
        data = (own_bundle / file.path).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (file.sha256, file.bytes)
    named = {own_bundle / file.path for file in [m.model, *(engine.file for engine in m.engines)]}
    assert set(files(own_bundle)) == named | {own_bundle / MANIFEST}


def test_a_bundle_may_be_moved(own_bundle: Path, tmp_path: Path) -> None:
    moved = own_bundle.rename(tmp_path / "elsewhere")
    with Bundle(moved).open() as pool:
        pool.run(0)


def test_widths_that_fill_the_same_blocks_share_an_engine(small_bundle: Bundle, small: Model) -> None:
    """Blocks of 16: 12 channels are one block at every width, the 24 of the inner layer one or two; 3 to 12 features are exits."""
    m = small_bundle.manifest
    assert [engine.channels for engine in m.engines] == [small.channels(Fraction(13, 20)), (12, 24)]
    assert [entry.engine for entry in m.widths] == [0] * 9 + [1] * 7
    assert [exit.features for exit in small_bundle.exits] == [3, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12]
    assert [small_bundle.exit(width) for width in small_bundle.widths] == [0, 1, 1, 2, 2, 3, 4, 4, 5, 6, 7, 8, 8, 9, 9, 10]


def test_a_width_that_is_not_in_the_grid_has_no_exit(small_bundle: Bundle) -> None:
    with pytest.raises(WidthError, match=r"the bundle has no engine for width 0\.26; its grid is 0\.25:1\.0:0\.05"):
        small_bundle.exit(Fraction(26, 100))


# A changed byte anywhere


def test_a_changed_byte_anywhere_in_the_manifest_is_refused_by_name(small: Model, tmp_path: Path) -> None:
    """Every byte in turn, whitespace and the checksum itself among them."""
    build(small, parse_grid("1.0"), load_backend("onnxruntime"), tmp_path, grid="1.0")
    file = tmp_path / MANIFEST
    data = file.read_bytes()
    assert len(data) > 1000
    messages = []
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        file.write_bytes(damaged)
        try:
            Bundle(tmp_path)
        except BundleError as error:
            messages.append(str(error))
    assert len(messages) == len(data)
    assert all(message.startswith(f"{file} was changed after the build") for message in messages)
    file.write_bytes(data)
    Bundle(tmp_path)


@pytest.mark.parametrize("old", [b" ", b"\n", b'"', b"{", b",", b":", b"5", b"a"])
def test_an_inserted_or_removed_byte_in_the_manifest_is_refused_by_name(own_bundle: Path, old: bytes) -> None:
    """JSON that reads the same is not the same file."""
    file = own_bundle / MANIFEST
    data = file.read_bytes()
    at = data.rindex(old)
    for damaged in (data[:at] + old + data[at:], data[:at] + data[at + 1 :], data + old, old + data):
        file.write_bytes(damaged)
        with pytest.raises(BundleError, match=r"manifest\.json was changed after the build"):
            Bundle(own_bundle)


@pytest.mark.parametrize("size", [0, 1, 14, 50, 80, 1000, -1])
def test_a_manifest_that_is_cut_off_is_refused_by_name(own_bundle: Path, size: int) -> None:
    file = own_bundle / MANIFEST
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(BundleError, match=r"manifest\.json was changed after the build, or is damaged") as caught:
        Bundle(own_bundle)
    assert f"awn-build-engines --widths 0.25:1.0:0.01 --out {own_bundle}" in str(caught.value)


def test_a_change_in_any_file_of_the_bundle_is_refused_by_name(own_bundle: Path) -> None:
    """A flipped bit at random places, a cut, an added byte, another file of the same size, and no file at all."""
    random = np.random.default_rng(0)
    for file in files(own_bundle):
        data = file.read_bytes()
        places = [0, len(data) - 1, *random.integers(0, len(data), 10)]
        damages = [data[:at] + bytes([data[at] ^ (1 << int(random.integers(8)))]) + data[at + 1 :] for at in places]
        for damaged in [*damages, data[:-1], data[: len(data) // 2], b"", data + b"\0", bytes(len(data))]:
            file.write_bytes(damaged)
            with pytest.raises(BundleError, match="was changed after the build") as caught:
                Bundle(own_bundle).open()
            assert str(file) in str(caught.value)
        file.unlink()
        with pytest.raises(BundleError) as caught:
            Bundle(own_bundle).open()
        assert (f"cannot read {file}: No such file" if file.name != MANIFEST else "there is no bundle at") in str(caught.value)
        file.write_bytes(data)
    Bundle(own_bundle).open().close()


def test_two_engines_that_changed_places_are_refused(own_bundle: Path) -> None:
    """Each is a whole engine, and each would answer at the wrong width."""
    first, second = ((own_bundle / engine.file.path) for engine in Bundle(own_bundle).manifest.engines[:2])
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    with pytest.raises(BundleError, match=r"was changed after the build \(its SHA-256 differs\)"):
        Bundle(own_bundle).open()


def test_the_command_for_a_damaged_engine_rebuilds_from_the_bundles_own_model(own_bundle: Path) -> None:
    m = Bundle(own_bundle).manifest
    (own_bundle / m.engines[0].file.path).write_bytes(b"")
    with pytest.raises(BundleError) as caught:
        Bundle(own_bundle).open()
    command = (
        f"awn-build-engines --model {own_bundle / m.model.path} --widths 0.25:1.0:0.05 --backend onnxruntime "
        f"--precision fp32 --pad 16 --out {own_bundle}"
    )
    assert str(caught.value).endswith(f"rebuild it: {command}")


def test_the_command_for_a_damaged_model_file_does_not_rebuild_from_it(own_bundle: Path) -> None:
    """The bundle would be whole again, and wrong."""
    model = own_bundle / Bundle(own_bundle).manifest.model.path
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with pytest.raises(BundleError) as caught:
        Bundle(own_bundle).open()
    assert "--model small --widths" in str(caught.value)
    assert f"--model {model}" not in str(caught.value)


def test_commands_can_be_pasted_whatever_the_directory_is_called(own_bundle: Path, tmp_path: Path) -> None:
    odd = own_bundle.rename(tmp_path / "my bundle; x")
    assert f"--out '{odd}'" in Bundle(odd).rebuild_command
    with pytest.raises(BundleError, match=f"--out '{tmp_path}/no bundle'"):
        Bundle(tmp_path / "no bundle")


# Paths


@pytest.mark.parametrize(
    "name",
    [
        "../outside.onnx",
        "/etc/passwd",
        "engines/../../outside.onnx",
        "",
        ".",
        "..",
        "engines//x",
        "engines/",
        "a\\b",
        "~/x",
        "engines/.lock",
        "a\0b",
        "a\nb",
    ],
)
def test_a_manifest_cannot_name_files_outside_its_bundle(own_bundle: Path, name: str) -> None:
    outside = own_bundle.parent / "outside.onnx"
    outside.write_bytes(b"secret")
    file = File(name, hashlib.sha256(b"secret").hexdigest(), 6)
    with pytest.raises(BundleError, match="is not a plain path inside the bundle"):
        Bundle(own_bundle).read(file)


def test_a_link_out_of_the_bundle_is_refused(own_bundle: Path) -> None:
    """Even one whose content is right: what lies outside may change after it was checked."""
    engine = own_bundle / Bundle(own_bundle).manifest.engines[0].file.path
    outside = Path(shutil.move(engine, own_bundle.parent / "outside.onnx"))
    engine.symlink_to(outside)
    with pytest.raises(BundleError, match=f"{engine} leads out of the bundle"):
        Bundle(own_bundle).open()


def test_a_linked_directory_out_of_the_bundle_is_refused(own_bundle: Path) -> None:
    outside = Path(shutil.move(own_bundle / "engines", own_bundle.parent / "outside"))
    (own_bundle / "engines").symlink_to(outside)
    with pytest.raises(BundleError, match="leads out of the bundle"):
        Bundle(own_bundle).open()


def test_the_bundle_itself_may_be_a_link(own_bundle: Path) -> None:
    link = own_bundle.parent / "link"
    link.symlink_to(own_bundle)
    Bundle(link).open().close()


# Versions, devices, places


def test_a_newer_format_is_refused_with_what_to_do(own_bundle: Path) -> None:
    change(own_bundle, format=FORMAT + 1)
    with pytest.raises(BundleError, match=f"has format {FORMAT + 1}; this version reads up to {FORMAT}: update this package"):
        Bundle(own_bundle)


def test_a_newer_format_may_have_fields_that_this_version_does_not_know(own_bundle: Path) -> None:
    rewrite(own_bundle, b'"format": 1', b'"spice": "new", "format": 2')
    with pytest.raises(BundleError, match="update this package"):
        Bundle(own_bundle)


@pytest.mark.parametrize(
    ("old", "new"), [(b'"format": 1', b'"format": "1"'), (b'"format": 1', b'"format": 1, "spice": 2'), (b'"padding": 16', b'"padding": {}')]
)
def test_what_is_no_manifest_is_refused(own_bundle: Path, old: bytes, new: bytes) -> None:
    rewrite(own_bundle, old, new)
    with pytest.raises(BundleError, match=r"manifest\.json is not a manifest: "):
        Bundle(own_bundle)


@pytest.mark.parametrize("engine", [-1, 12, 999])
def test_a_width_without_an_engine_is_refused(own_bundle: Path, engine: int) -> None:
    m = Bundle(own_bundle).manifest
    widths = (*m.widths[:-1], msgspec.structs.replace(m.widths[-1], engine=engine if engine < 0 else len(m.engines) + engine - 12))
    change(own_bundle, widths=widths)
    with pytest.raises(BundleError, match="names a width without an engine"):
        Bundle(own_bundle)


def test_a_bundle_without_widths_is_refused(own_bundle: Path) -> None:
    change(own_bundle, widths=())
    with pytest.raises(BundleError, match="names a width without an engine"):
        Bundle(own_bundle)


def test_a_bundle_of_another_machine_names_both_and_the_command(own_bundle: Path) -> None:
    change(own_bundle, fingerprint={"architecture": "pdp11"})
    here = load_backend("onnxruntime").fingerprint()["architecture"]
    with pytest.raises(DeviceMismatch) as caught:
        Bundle(own_bundle).open()
    assert f"architecture pdp11 there, {here} here" in str(caught.value)
    assert f"rebuild it here: awn-build-engines --model {own_bundle}/model-" in str(caught.value)


@pytest.mark.parametrize("fingerprint", [{}, {"architecture": None, "gpu": "Orin"}])
def test_a_fingerprint_with_more_or_less_in_it_is_another_device(own_bundle: Path, fingerprint: dict[str, str | None]) -> None:
    here = load_backend("onnxruntime").fingerprint()
    change(own_bundle, fingerprint={key: value or here[key] for key, value in fingerprint.items()})
    with pytest.raises(DeviceMismatch, match="unknown"):
        Bundle(own_bundle).open()


def test_a_damaged_model_is_found_before_the_user_is_told_to_rebuild_from_it(own_bundle: Path) -> None:
    change(own_bundle, fingerprint={"architecture": "pdp11"})
    (own_bundle / Bundle(own_bundle).manifest.model.path).write_bytes(b"")
    with pytest.raises(BundleError, match="was changed after the build"):
        Bundle(own_bundle).open()


def test_a_backend_that_is_not_installed_is_named(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.backends.onnxruntime.find_spec", lambda _: None)
    with pytest.raises(BackendError, match="was built for onnxruntime: the package onnxruntime is not installed: pip install"):
        Bundle(own_bundle).open()


def test_a_backend_that_this_version_does_not_have_is_named(own_bundle: Path) -> None:
    change(own_bundle, backend="tensorrt-12")
    with pytest.raises(BackendError, match="no backend is named 'tensorrt-12'"):
        Bundle(own_bundle).open()


def test_no_bundle_yet_gives_the_command_that_builds_one() -> None:
    """The user's first line of Python before the first line of shell."""
    with pytest.raises(BundleError) as caught:
        Bundle()
    assert str(caught.value) == (
        f"there is no bundle at {default_path()}; build one: awn-build-engines --widths 0.25:1.0:0.01 --out {default_path()}"
    )


def test_an_unfinished_build_says_so(own_bundle: Path) -> None:
    (own_bundle / MANIFEST).unlink()
    with pytest.raises(
        BundleError, match=r"there is no bundle at .* \(a build there is not finished: the same command goes on\); build one: "
    ):
        Bundle(own_bundle)


def test_a_manifest_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(BundleError, match=r"cannot read .*manifest\.json: Is a directory"):
        Bundle(tmp_path)


def test_a_file_in_the_place_of_the_bundle_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BundleError, match="there is no bundle at"):
        Bundle(tmp_path / "file")


def test_the_default_place_is_the_users_own_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_path() == platformdirs.user_data_path("any-width-networks") / "bundle" == tmp_path / "any-width-networks" / "bundle"


def test_the_environment_names_another_default(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWN_BUNDLE", str(own_bundle))
    assert Bundle().path == default_path() == own_bundle
    monkeypatch.setenv("AWN_BUNDLE", "")
    assert default_path() != own_bundle


def test_the_environment_and_the_user_who_builds_agree_on_the_default(small: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    build(small, parse_grid("1.0"), load_backend("onnxruntime"), default_path(), grid="1.0")
    assert list(Bundle().widths) == [1]


def test_a_manifest_is_written_with_its_checksum_at_a_fixed_place(tmp_path: Path, small_bundle: Bundle) -> None:
    write_manifest(tmp_path, small_bundle.manifest)
    data = (tmp_path / MANIFEST).read_bytes()
    start = len(module._HEAD)
    blank = data[:start] + b"0" * 64 + data[start + 64 :]
    assert data[start : start + 64].decode() == hashlib.sha256(blank).hexdigest() == small_bundle.manifest.sha256
    assert msgspec.json.decode(data, type=Manifest) == small_bundle.manifest


@pytest.mark.parametrize(
    "fields",
    [
        {"image": (10**6, 10**6, 1)},
        {"image": (0, 8, 1)},
        {"model": File("model.onnx", "0" * 64, -10)},
        {"model": File("model.onnx", "0" * 64, 10**30)},
    ],
)
def test_sizes_that_cannot_be_are_refused_before_anything_is_read(own_bundle: Path, fields: dict[str, object]) -> None:
    """A manifest with a right checksum may still come from somebody else."""
    change(own_bundle, **fields)
    with pytest.raises(BundleError, match="impossible size"):
        Bundle(own_bundle)
