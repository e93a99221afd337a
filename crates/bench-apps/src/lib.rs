//! Data sets, experiments, reports and the lipconv command.
