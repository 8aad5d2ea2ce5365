"""`ladm evaluate`: what is asked, the flow that answers it, and the files that it leaves."""
