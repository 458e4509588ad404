"""Files of rows become records, records become token sequences, sequences become batches."""
