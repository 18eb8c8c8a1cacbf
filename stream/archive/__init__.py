"""The event log as partitioned Parquet: `onebar archive`.

archive.json                                    what is in it, and up to which offset
events/type=click/date=2026-01-05/TOPIC-PARTITION-FIRST-LAST.parquet
invalid/date=2026-01-05/TOPIC-PARTITION-FIRST-LAST.parquet     messages that are no event

`date` is the UTC day of the event's `ts` (of the Kafka timestamp for what is no event), FIRST and
LAST are the offsets of the range that was written together.
"""
