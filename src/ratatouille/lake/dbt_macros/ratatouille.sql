{#
  What a model becomes here: staged Parquet files of the lake, and a view over them in dbt's own database, so that
  everything below it, tests included, reads the candidate. `rat` is the plugin in lake/dbt_plugin.py.
#}

{% macro is_incremental() %}
  {#- A relation called `this` is there from the start exactly when the lake has a published one. -#}
  {%- if not execute -%}
    {{ return(false) }}
  {%- endif -%}
  {{ return(model.config.materialized == 'incremental' and not should_full_refresh()
            and adapter.get_relation(this.database, this.schema, this.identifier) is not none) }}
{% endmacro %}

{% macro ratatouille_stage(how) %}
  {%- if config.get('contract').enforced -%}
    {%- do get_assert_columns_equivalent(sql) -%}
  {%- endif -%}
  {%- do adapter.store_relation('rat', this, [], sql, how, config) -%}
  {%- call noop_statement('main', 'STAGED') -%}
    {{ sql }}
  {%- endcall -%}
{% endmacro %}

{% materialization table, adapter='duckdb' %}
  {%- do ratatouille_stage('table') -%}
  {{ return({'relations': [this.incorporate(type='view')]}) }}
{% endmaterialization %}

{% materialization incremental, adapter='duckdb' %}
  {%- do ratatouille_stage('incremental' if is_incremental() else 'table') -%}
  {{ return({'relations': [this.incorporate(type='view')]}) }}
{% endmaterialization %}

{% materialization view, adapter='duckdb' %}
  {%- do ratatouille_stage('view') -%}
  {{ return({'relations': [this.incorporate(type='view')]}) }}
{% endmaterialization %}

{% materialization seed, adapter='duckdb' %}
  {%- set rows = load_agate_table() -%}
  {%- do store_result('agate_table', response='OK', agate_table=rows) -%}
  {%- do adapter.store_relation('rat', this, [], '', 'empty', config) -%}
  {%- do create_csv_table(model, rows) -%}
  {%- if rows.rows | length > 0 -%}
    {%- do load_csv_rows(model, rows) -%}
    {%- do adapter.commit() -%}{# add_query opens a transaction, and the plugin has a cursor of its own #}
  {%- endif -%}
  {%- do adapter.store_relation('rat', this, [], 'select * from ' ~ this.render(), 'seed', config) -%}
  {%- call noop_statement('main', 'STAGED') -%}
  {%- endcall -%}
  {{ return({'relations': [this.incorporate(type='view')]}) }}
{% endmaterialization %}
