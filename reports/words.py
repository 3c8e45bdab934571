"""Numbers and names as people read them: durations, units out of metric names, shares, hashes."""

from __future__ import annotations

from collections.abc import Mapping

NO_FIGURE = "–"
_UNITS = {"db": "dB", "kb": "kB", "mb": "MB", "gb": "GB", "m": "M", "g": "G", "ms": "ms", "s": "s", "px": "px"}
_UNITS |= {"h": "h", "count": "", "percent": "%"}
_SIGNS = "T2I QAT HTP AIMET ONNX SQNR PSNR MSE KL EMA VAE GAN QDQ W8 W8A16 MACs ORT MB GB"
_SPELLING = {sign.lower(): sign for sign in _SIGNS.split()} | {"kd": "distillation", "lr": "learning rate"}
TASKS = {"two_object": "two objects", "color_attr": "colour attribution", "colors": "colours"}


def unit_of(name: str) -> str:
    """The unit that a metric's name ends in, as a sign ("sqnr_db" -> "dB"); empty for scores and counts."""
    head, _, tail = name.rpartition("_")
    return _UNITS.get(tail, "") if head else ""


def label_of(name: str) -> str:
    """A metric's, curve's or task's name in words, its unit left off: "htp_vs_float_sqnr_db" -> "HTP vs float SQNR"."""
    if name in TASKS:
        return TASKS[name]
    name = name.replace("_db_before", "_before")
    head, _, tail = name.rpartition("_")
    words = (head if head and tail in _UNITS else name).replace("/", " ").replace(".", " ").split("_")
    return " ".join(_SPELLING.get(word, word) for word in words)


def heading(name: str) -> str:
    """`label_of` with a capital."""
    return capital(label_of(name))


def capital(text: str) -> str:
    """The text with a capital."""
    return text[:1].upper() + text[1:]


def number(value: float | None, digits: int = 3) -> str:
    """`value` with about `digits` significant digits and no exponent for ordinary sizes; a dash for None."""
    if value is None:
        return NO_FIGURE
    if value == 0:
        return "0"
    if isinstance(value, int) and abs(value) < 10**digits:
        return str(value)
    size = abs(value)
    if size >= 1e6 or size < 1e-4:
        return f"{value:.{digits - 1}e}"
    if size >= 10 ** (digits - 1):
        return f"{value:,.0f}".replace(",", "\u202f")  # narrow no-break space between thousands
    decimals = max(0, digits - 1 - _magnitude(size))
    return f"{value:.{decimals}f}"


def plus_minus(mean: float, deviation: float | None) -> str:
    """A mean with its spread, to two digits of the spread: "0.123 ± 0.012"; the mean alone where there is none."""
    if not deviation:
        return number(mean, 4)
    decimals = min(max(0, 1 - _magnitude(deviation)), 6)
    return f"{mean:.{decimals}f} ± {deviation:.{decimals}f}"


def _magnitude(size: float) -> int:
    return int(f"{size:e}".partition("e")[2])


def score(value: float | None) -> str:
    """A score in 0..1 with three decimals; a dash for None."""
    return NO_FIGURE if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    """A difference of scores, with its sign: "+0.012", "−0.004"."""
    return NO_FIGURE if value is None else f"{value:+.3f}".replace("-", "−")


def signed_within(value: float | None, half: float | None) -> str:
    """The same with the half width of its interval, where that is known: "+0.012 ± 0.009"."""
    return signed(value) if value is None or half is None else f"{signed(value)} ± {half:.3f}"


def quantity(name: str, value: float) -> str:
    """A metric's value with the unit of its name: ("binary_mb", 9.4) -> "9.40 MB"."""
    unit = unit_of(name)
    if name.endswith("_s"):
        return duration(value)
    text = str(int(value)) if name.endswith("_count") and float(value).is_integer() else number(value)
    return f"{text}\u00a0{unit}" if unit else text


def duration(seconds: float | None) -> str:
    """Wall time: "850 ms", "42 s", "3 min 05 s", "2 h 07 min"."""
    if seconds is None or seconds <= 0:
        return NO_FIGURE
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def short(digest: str | None) -> str:
    """The first ten digits of a hash."""
    return digest[:10] if digest else NO_FIGURE


def machine(facts: Mapping[str, object]) -> str:
    """One line about a machine: "2 × Intel Xeon, 23 GB"; the GPU first if there is one."""
    parts = [str(facts["gpu"])] if facts.get("gpu") else []
    if facts.get("processor"):
        cores = f"{facts['cores']} × " if facts.get("cores") else ""
        parts.append(f"{cores}{facts['processor']}")
    if facts.get("memory_gb"):
        parts.append(f"{float(str(facts['memory_gb'])):.0f} GB")
    return ", ".join(parts) or NO_FIGURE
