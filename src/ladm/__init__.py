"""ladm: long-context training data, chosen nightly by the attention of a small language model.

`ladm.flows` holds what runs (the DAG, its configuration, the command line), `ladm.tasks` what each stage computes, and
`ladm.sql` the statements that rank and select. The folders lie at the top of the repository and are linked here, so
that nothing but `ladm` stands in anybody's site-packages.
"""
