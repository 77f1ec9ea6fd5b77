"""An Airflow DAG: one task per night, skipped downstream when there is nothing new."""

from __future__ import annotations

from datetime import datetime, timedelta

try:
    from airflow.providers.standard.operators.bash import BashOperator  # Airflow 3
    from airflow.sdk import DAG
except ImportError:
    from airflow import DAG  # Airflow 2
    from airflow.operators.bash import BashOperator

NOTHING_NEW = 3

with DAG(
    dag_id="curate_pool",
    schedule="17 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=10)},
    tags=["thresher"],
) as dag:
    curate = BashOperator(
        task_id="curate",
        cwd="/srv/pool",
        bash_command="thresher curate run job.toml --log-json",
        skip_on_exit_code=NOTHING_NEW,  # 75 (busy) fails and is tried again; so is a kill
    )
    publish = BashOperator(
        task_id="publish",
        cwd="/srv/pool",
        bash_command="thresher curate show latest --job job.toml",
        retries=0,
    )
    curate >> publish
