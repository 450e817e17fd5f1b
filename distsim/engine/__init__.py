"""Floor 3: tasks, streams and the executor: a graph of tasks that grows, run on devices and links."""
