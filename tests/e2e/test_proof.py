"""What an image is made of, what changed, and that it comes out again: through the console script."""

import shutil

import pytest

pytestmark = [pytest.mark.network, pytest.mark.examples]


def test_an_image_is_inspected_compared_and_built_again(corten, folder, digits_model):
    model = folder / "proved.joblib"
    shutil.copyfile(digits_model["paths"][0], model)
    first = corten.run("build", model).out.strip()
    shutil.copyfile(digits_model["paths"][1], model)
    second = corten.run("build", model).out.strip()

    listed = {one["digest"]: one["name"] for one in corten.run("images", "--json").json["images"]}
    assert listed[second.partition("@")[2]] == "proved"
    assert listed[first.partition("@")[2]] == ""

    seen = corten.run("inspect", first, "--json").json
    assert seen["model"]["adapter"] == "sklearn"
    assert {"scikit-learn", "numpy", "libc6"} <= {one["name"] for one in seen["packages"]}
    text = corten.run("inspect", "proved").out
    assert "/models/proved.joblib" in text
    assert "float64[*,64]" in text

    changed = corten.run("diff", first, second, "--json").json
    assert [one["name"] for one in changed["files"]] == ["/models/proved.joblib"]
    assert (changed["packages"], changed["schema"], changed["settings"]) == ([], [], [])
    assert "/models/proved.joblib" in corten.run("diff", first, second).out

    rebuilt = corten.run("rebuild", "proved", "--verify", "--json", "--offline").json
    assert rebuilt["same"]
    assert rebuilt["after"] == second.partition("@")[2]


def test_a_build_over_its_budget_is_refused_with_7_and_names_the_largest(corten, digits_model):
    done = corten.run("build", digits_model["paths"][0], "--name", "heavy", "--max-image-mb", "20", code=7)

    assert done.out == ""
    assert "scipy" in done.err
    assert "build.over_budget" in done.err
    assert "heavy" not in [one["name"] for one in corten.run("images", "--json").json["images"]]
    assert corten.run("build", digits_model["paths"][0], "--max-image-mb", "lots", code=2).out == ""


def test_a_signed_image_is_verified_and_an_unsigned_one_refused(corten, folder, digits_model):
    digest = corten.run("build", digits_model["paths"][0], "--name", "signed").out.strip().partition("@")[2]
    corten.run("keygen", folder / "ours")
    corten.run("keygen", folder / "theirs")
    assert "signature.missing" in corten.run("verify", "signed", "--key", folder / "ours.pub", code=7).err

    corten.run("sign", "signed", "--key", folder / "ours.key")

    assert corten.run("verify", "signed", "--key", folder / "ours.pub").out.strip() == digest
    assert "signature.refused" in corten.run("verify", "signed", "--key", folder / "theirs.pub", code=7).err
    built = corten.run("build", digits_model["paths"][1], "--name", "signed", "--sign-key", folder / "theirs.key").out
    assert corten.run("verify", "signed", "--key", folder / "theirs.pub").out.strip() == built.strip().partition("@")[2]
    assert "signature.bad_key" in corten.run("build", digits_model["paths"][1], "--sign-key", folder, code=2).err
    assert "signature.no_key" in corten.run("sign", "signed", code=2, env={"CORTEN_SIGN_KEY": ""}).err
