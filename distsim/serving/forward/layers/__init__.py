"""What a rank computes and sends for each part of a model in one iteration of serving."""
