"""The stages of the DAG, one module a stage: a plain function `compute(job, store, key) -> Outcome` each."""
