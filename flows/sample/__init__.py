"""The bundled sample corpus: one `DOMAIN.jsonl.zst` a domain; `SOURCES.md` has origins and licences."""
