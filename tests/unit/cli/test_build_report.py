from types import SimpleNamespace

from corten.builder.sizes import PackageSize
from corten.cli.build import advice
from corten.ops.unused import Unused


def built(*contents, gate=None):
    return SimpleNamespace(layers=[SimpleNamespace(contents=contents)], gate=gate)


def test_the_report_names_the_largest_packages_whatever_layer_they_are_in():
    packages = [PackageSize(f"p{number}", "1.0", number * 1_000_000) for number in range(1, 8)]
    assert list(advice(built(*packages))) == [
        "largest packages: p7 1.0 7.0 MB, p6 1.0 6.0 MB, p5 1.0 5.0 MB, p4 1.0 4.0 MB, p3 1.0 3.0 MB"
    ]


def test_after_a_test_it_says_what_could_be_left_out():
    gate = SimpleNamespace(unused=(Unused("pandas", "2.3", 60_000_000),))
    assert list(advice(built(gate=gate))) == [
        "the test loaded nothing of: pandas 60.0 MB (unpacked); without them the image is smaller"
    ]


def test_an_image_without_packages_needs_no_advice():
    assert not list(advice(built()))
