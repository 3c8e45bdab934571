import pytest

from reports import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (0.0, "0"),
        (10, "10"),
        (8.4371, "8.44"),
        (31.92, "31.9"),
        (0.4126, "0.413"),
        (389.97, "390"),
        (9.9999, "10.00"),
        (1234.5, "1\u202f234"),
        (0.00001, "1.00e-05"),
        (-0.25, "-0.250"),
    ],
)
def test_numbers_keep_about_three_digits(value, text):
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.0, "–"),
        (0.25, "250 ms"),
        (1.84, "1.8 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7620, "2 h 07 min"),
    ],
)
def test_durations_round_into_the_next_unit(seconds, text):
    assert words.duration(seconds) == text


def test_metric_names_end_in_their_unit():
    assert words.unit_of("htp_vs_float_sqnr_db") == "dB"
    assert words.label_of("htp_vs_float_sqnr_db") == "HTP vs float SQNR"
    assert words.heading("float_ops_count") == "Float ops"
    assert words.quantity("float_ops_count", 0.0) == "0"
    assert words.quantity("binary_mb", 9.62) == "9.62\u00a0MB"
    assert words.quantity("compile_s", 41.7) == "42 s"
    assert words.unit_of("s") == ""  # a lone letter is a name, not a unit


def test_differences_carry_a_true_minus():
    assert words.signed(-0.0041) == "−0.004"
    assert words.signed(0.02) == "+0.020"
    assert words.signed(None) == "–"


def test_a_machine_is_named_by_its_gpu_first():
    facts = {"processor": "CPU", "cores": 2, "memory_gb": 23.4}
    assert words.machine(facts) == "2 × CPU, 23 GB"
    assert words.machine(facts | {"gpu": "GPU"}) == "GPU, 2 × CPU, 23 GB"
    assert words.machine({}) == "–"
