"""The mistakes that the explainer tells apart from its own bugs."""


class UsageError(ValueError):
    """A mistake in what the user asked for: one line that says what was given, what is allowed and what to type next."""


class UnreadableImageError(OSError):
    """One image that cannot be read; the rest of the run goes on without it."""


def unknown(kind: str, given: object, known: object, hint: str = "") -> UsageError:
    """Return the error for a name that does not exist; it lists the names that do."""
    listed = ", ".join(str(name) for name in known)
    return UsageError(f"unknown {kind} '{given}'; known: {listed}" + (f" ({hint})" if hint else ""))
