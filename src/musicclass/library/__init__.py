"""A whole music library: many files -> one table of genres, in parallel, though some of them are damaged.

run.py: folders -> files; results.py: the files to process; workers.py: their predictions; table.py, report.py: outputs
"""

# Of genres that are written into tags. In cross-validation, 81% of those that `music` predicts with this confidence or
# more are right, and these are 84% of its genres (`gtzan`: 84%, 80%).
MIN_CONFIDENCE = 0.5
MIN_FURTHER = 0.25  # probability of a genre after the first
