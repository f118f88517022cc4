"""Numbers as a person reads them. Every function gives a dash for None and for NaN."""

import math

MISSING = "\N{EN DASH}"
_FRACTIONS = frozenset({"accuracy", "error"})


def is_fraction(metric: str) -> bool:
    """Whether a metric is a share in [0, 1], shown in percent."""
    return metric in _FRACTIONS


def significant(value: float | None, digits: int = 3) -> str:
    """Round to significant digits, without an exponent: 0.0123, 1.20, 345."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{min(max(places, 0), 9)}f}"


def metric_value(metric: str, value: float | None) -> str:
    """Quality: percent for accuracy and error, three decimals otherwise."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{100 * value:.2f} %" if is_fraction(metric) else f"{value:.3f}"


def with_error(metric: str, value: float | None, standard_error: float | None) -> str:
    """Quality and its standard error: `97.80 ± 0.77 %`."""
    if value is None or standard_error is None or not math.isfinite(value + standard_error):
        return metric_value(metric, value)
    if is_fraction(metric):
        return f"{100 * value:.2f} ± {100 * standard_error:.2f} %"
    return f"{value:.3f} ± {standard_error:.3f}"


def percent(fraction: float | None) -> str:
    """A fraction in percent with two significant digits: `0.71 %`."""
    if fraction is None or not math.isfinite(fraction):
        return MISSING
    return f"{significant(100 * fraction, 2)} %"


def count(value: float | None) -> str:
    """A count with a decimal prefix: 512, 1.21 k, 3.40 M."""
    return _scaled(value, 1000.0, ("", " k", " M", " G", " T"))


def size(value: float | None) -> str:
    """Bytes with a binary prefix: 512 B, 1.21 MiB."""
    return _scaled(value, 1024.0, (" B", " KiB", " MiB", " GiB", " TiB"))


def duration(seconds: float | None) -> str:
    """A time span: `42 s`, `3 min 01 s`, `2 h 05 min`."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _scaled(value: float | None, base: float, units: tuple[str, ...]) -> str:
    if value is None or not math.isfinite(value):
        return MISSING
    power = 0
    while abs(value) >= base and power < len(units) - 1:
        value, power = value / base, power + 1
    return f"{value:.0f}{units[0]}" if power == 0 else f"{significant(value)}{units[power]}"
