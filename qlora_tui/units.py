"""Format sizes, counts and durations for people. The only place that does.

Memory is given in binary units (GiB), disk and download sizes in decimal units (GB), as `df -H` and model hubs do.
"""


def memory(size_bytes: float) -> str:
    """Format an amount of memory in binary units with three digits: "7.40 GiB", "812 MiB"."""
    amount, units = float(size_bytes), ("B", "KiB", "MiB", "GiB")
    for unit in units:
        if abs(amount) < 1000 or unit == units[-1]:
            break
        amount /= 1024
    return f"{amount:.0f} B" if unit == "B" else f"{_three_digits(amount)} {unit}"


def signed_memory(size_bytes: int) -> str:
    """Format a difference of memory: "+1.20 GiB", "−300 MiB", "±0"."""
    if abs(size_bytes) < 1024:
        return "±0"
    return f"{'+' if size_bytes > 0 else '−'}{memory(abs(size_bytes))}"


def disk(size_bytes: int | None) -> str:
    """Format a size on disk or of a download in decimal units: "13.6 MB"."""
    if size_bytes is None:
        return "an unknown number of bytes"
    amount = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def count(number: float | None) -> str:
    """Format a number of parameters: "8.03 B", "596 M"; "?" if it is unknown."""
    if number is None:
        return "?"
    for unit, divisor in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= divisor:
            return f"{_three_digits(number / divisor)} {unit}"
    return f"{number:.0f}"


def clock(seconds: float) -> str:
    """Format a duration in hours, minutes and seconds: "1:02:03", "4:05"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def approximate_duration(seconds: float) -> str:
    """Format a duration in its largest unit: "40 s", "12 min", "3.5 h", "102 days"."""
    for unit_s, name in ((86_400 * 365, "year"), (86_400, "day"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * unit_s:
            amount = seconds / unit_s
            plural = "s" if name in ("day", "year") else ""
            return f"{amount:.0f} {name}{plural}" if amount >= 10 else f"{amount:.1f} {name}{plural}"
    return f"{max(1, round(seconds))} s"


def _three_digits(amount: float) -> str:
    digits = 0 if abs(amount) >= 100 else 1 if abs(amount) >= 10 else 2
    return f"{amount:.{digits}f}"
