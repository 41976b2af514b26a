"""Conversations on their way out of a store, in forms that other programs read: ``export --to``.

    turns       a thread as its messages and calls, in the order in which they happened
    chat        turns as a line of chat-completions
    sharegpt    turns as a line of ShareGPT
    notes       threads as Markdown files in a directory, which later exports bring up to date;
                note_names and front_matter say what each is called and how it begins

The store's own objects, from which nothing is lost, are in `threadfs.openai`.
"""
