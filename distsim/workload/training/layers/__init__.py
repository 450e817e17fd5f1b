"""Layers as operations: what one rank computes and sends for a layer, forward and backward, under a plan and a stack."""
