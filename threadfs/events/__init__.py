"""What happens in a store, as lines for programs: ``.threadfs/events`` and ``threadfs events``.

A `Change` of the store says where something may be another. `telling` looks there, compares with what it
knew, and says what has happened: an `Event`. `teller` does so for a mount, in a thread of its own, `kept`
keeps the lines, and `history` finds what happened before anybody listened, by the times in the documents.
"""
