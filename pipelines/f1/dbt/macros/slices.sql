{#
A session is a slice: it is built whole, or left alone.

`changed_sessions(inputs)` gives the keys of the sessions of which an input has rows that are newer than what this
model has seen; none means all of them. They are found out before the model's own query, so that the query names a few
sessions and reads a few files, however many seasons there are. Rows carry `input_updated_at`, the newest stamp of what
they come from; all inputs of a model must be stamped by the same clock.
#}
{% macro changed_sessions(inputs, stamp='updated_at', also=none) %}
  {%- if not is_incremental() -%}{{ return(none) }}{%- endif -%}
  {%- set seen = run_query("select max(input_updated_at) from " ~ this).columns[0].values()[0] -%}
  {%- if seen is none -%}{{ return(none) }}{%- endif -%}
  {%- set parts = [also] if also else [] -%}
  {%- for input in inputs -%}
    {%- do parts.append("select distinct session_key from " ~ input ~ " where " ~ stamp ~ " > cast('" ~ seen ~ "' as timestamp)") -%}
  {%- endfor -%}
  {{ return(run_query(parts | join(" union ")).columns[0].values() | list) }}
{% endmacro %}

{# A condition: the row is of one of these sessions. #}
{% macro of_sessions(keys, column='session_key') -%}
  {%- if keys is none -%}{{ column }} is not null
  {%- else -%}{{ column }} in ({{ keys | join(", ") if keys else "null" }})
  {%- endif -%}
{%- endmacro %}

{# Slices are replaced where the engine can do it in one commit; elsewhere tables are built whole. #}
{% macro sliced() %}
  {{ return('incremental' if target.type == 'duckdb' else 'table') }}
{% endmacro %}

{% macro slice_strategy() %}
  {{ return('delete+insert' if target.type == 'duckdb' else none) }}
{% endmacro %}

{#
The rows of a bronze table, each once: of those with the same key the one that came last. A corrected file brings rows
that are there already.
#}
{% macro newest(table, keys, changed) -%}
  select * from (
    select *, row_number() over (partition by {{ keys | join(", ") }} order by _loaded_at desc, _file desc) as recency
    from {{ source('bronze_raw', table) }}
    where {{ of_sessions(changed) }}
  ) as read
  where recency = 1
{%- endmacro %}
