import pytest

from fairlead.evaluate import wording


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (wording.percent(0.7312), "73.1 %"),
        (wording.fixed(-0.5), "−0.50"),
        (wording.signed(0.5), "+0.50"),
        (wording.signed(-1.25, 1), "−1.2"),
        (wording.between(0.7, 0.8, wording.percent), "70.0 to 80.0 %"),
        (wording.interval(-1, 2), "95 % interval −1.00 to 2.00"),
        (wording.duration(3.14), "3.1 s"),
        (wording.duration(59.7), "1 min 0 s"),
        (wording.duration(312.4), "5 min 12 s"),
        (wording.duration(7265), "2 h 1 min"),
        (wording.size(512), "512 bytes"),
        (wording.size(1536), "1.5 KiB"),
        (wording.size(3 * 1024**3), "3.0 GiB"),
        (wording.sizes({"rows": 330, "response_tokens": 12345}), "330 rows, 12\u202f345 response tokens"),
        (wording.readable("a\x00b\x1b[31m\n\tc\ud800"), "a\ufffdb\ufffd[31m\n\tc\ufffd"),
    ],
)
def test_numbers_read_as_people_write_them(got, want):
    assert got == want
