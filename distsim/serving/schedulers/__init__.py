"""Batching policies of a replica, one file each (role ``scheduler``)."""
