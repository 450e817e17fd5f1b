"""Providers of kernel times: each a pure function of a kernel and a GPU, one file each."""
