"""What is known of a store without reading it: titles, times, runs, and the words of all messages.

The catalogue is derived: nothing is in it that the store does not say, and a catalogue that is lost is made
anew. This room knows neither a store nor a file system. It is given plain values (`values`), keeps them in
a database of SQLite, and answers.

    api          what a store answers from its catalogue, whatever keeps it
    folding      text as words that are the same in any spelling
    names        what a thread is called, as a name for a file
    queries      what a person asks for, as terms
    matching     whether a text holds the terms, and the piece of it that shows them
    schema       the tables
    place        the file, which nobody else may have written
    tables       taking over what the store says
    lists        lists of what is in the tables
    searching    queries over the tables
    describing   what a thread and a run say of themselves
    finding      queries over threads that are read, and what is shown of hits
    reading      a catalogue that knows no words, and reads the logs for them
    candidates   what is to be looked at by who deletes or ends what is old
    turns        a lock that goes to who has waited longest
"""
