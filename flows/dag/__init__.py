"""The DAG of a run: the table of its stages, the plan, the jobs, and the flow that does them."""
