"""The admin API by subject: who may call it, and the routes of keys, policies, budgets, the store and the audit log."""
