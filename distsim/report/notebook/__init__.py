"""What a notebook shows of an object: one module per class, registered under role ``notebook``; the class's ``_repr_html_``
looks it up, so that results need not know how they are shown."""
