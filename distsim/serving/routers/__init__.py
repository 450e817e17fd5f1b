"""Which replica a request goes to, one file each (role ``router``)."""
