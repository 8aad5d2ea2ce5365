-- Selects the best documents of every domain within a budget of tokens.
--
-- Reads     ranked          (rank.sql)
-- Variable  budget_tokens   tokens to select at most; null selects everything
-- Makes     ranking         ranked, with `selected`
--
-- Proportional allocation (LADM, section 3.3: the same top share of every domain), continuously: documents are
-- taken in the order of the share of their own domain that they complete, until the next would pass the budget.
-- So the budget is never exceeded, it is missed by less than one document, and no domain is favoured by more than
-- one document.
create or replace temp table ranking as
select
    * exclude (running_tokens),
    coalesce(running_tokens <= getvariable('budget_tokens')::hugeint, true) as selected
from (
    select *, sum(doc_tokens) over (order by top_share, doc_id rows unbounded preceding) as running_tokens
    from ranked
);
