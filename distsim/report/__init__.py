"""Floor 7: what people and programs are given: text, one JSON document, a folder of Parquet, a timeline."""
