//! PostgreSQL: pool, migrations, and one module per table.
