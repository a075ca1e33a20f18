"""Numbers as a screen shows them: short, with their unit."""


def gib(size_bytes: float) -> str:
    """Memory in binary units with three figures: "7.40 GiB", "812 MiB"."""
    amount = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1000 or unit == "GiB":
            break
        amount /= 1024
    if unit == "B":
        return f"{amount:.0f} B"
    digits = 0 if abs(amount) >= 100 else 1 if abs(amount) >= 10 else 2
    return f"{amount:.{digits}f} {unit}"


def count(number: float | None) -> str:
    """A number of parameters: "8.03 B", "596 M"; "?" when unknown."""
    if number is None:
        return "?"
    for unit, divisor in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= divisor:
            amount = number / divisor
            digits = 0 if amount >= 100 else 1 if amount >= 10 else 2
            return f"{amount:.{digits}f} {unit}"
    return f"{number:.0f}"


def signed_gib(size_bytes: int) -> str:
    """A difference: "+1.20 GiB", "−300 MiB", "±0"."""
    if abs(size_bytes) < 1024:
        return "±0"
    return f"{'+' if size_bytes > 0 else '−'}{gib(abs(size_bytes))}"
