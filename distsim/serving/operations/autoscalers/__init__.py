"""How many replicas there should be, one file each (role ``autoscaler``)."""
