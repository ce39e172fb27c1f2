{# What DuckDB and Spark say differently. #}

{# A text with a time, with or without a fraction, a zone or a T, as a timestamp in UTC. #}
{% macro utc(column) %}{{ return(adapter.dispatch('utc')(column)) }}{% endmacro %}
{% macro default__utc(column) %}(cast({{ column }} as timestamptz) at time zone 'UTC'){% endmacro %}
{% macro spark__utc(column) %}to_utc_timestamp(cast({{ column }} as timestamp), current_timezone()){% endmacro %}
{% macro databricks__utc(column) %}{{ spark__utc(column) }}{% endmacro %}

{% macro seconds_between(start, end) %}{{ return(adapter.dispatch('seconds_between')(start, end)) }}{% endmacro %}
{% macro default__seconds_between(start, end) %}(epoch_ms({{ end }}) - epoch_ms({{ start }})) / 1000.0{% endmacro %}
{% macro spark__seconds_between(start, end) %}(unix_millis({{ end }}) - unix_millis({{ start }})) / 1000.0{% endmacro %}
{% macro databricks__seconds_between(start, end) %}{{ spark__seconds_between(start, end) }}{% endmacro %}

{% macro seconds_after(start, seconds) %}{{ return(adapter.dispatch('seconds_after')(start, seconds)) }}{% endmacro %}
{% macro default__seconds_after(start, seconds) %}{{ start }} + to_seconds({{ seconds }}){% endmacro %}
{% macro spark__seconds_after(start, seconds) %}{{ start }} + make_interval(0, 0, 0, 0, 0, 0, {{ seconds }}){% endmacro %}
{% macro databricks__seconds_after(start, seconds) %}{{ spark__seconds_after(start, seconds) }}{% endmacro %}

{# A person's name without accents, case and doubled blanks: the only key of a person that the API gives. #}
{% macro person_key(name) %}{{ return(adapter.dispatch('person_key')(name)) }}{% endmacro %}
{% macro default__person_key(name) %}regexp_replace(upper(trim(strip_accents({{ name }}))), '\s+', ' ', 'g'){% endmacro %}
{% macro spark__person_key(name) %}regexp_replace(upper(trim(translate({{ name }}, 'ÁÀÂÄÃÅÇÉÈÊËÍÌÎÏÑÓÒÔÖÕÚÙÛÜÝáàâäãåçéèêëíìîïñóòôöõúùûüý', 'AAAAAACEEEEIIIINOOOOOUUUUYaaaaaaceeeeiiiinooooouuuuy'))), '\\s+', ' '){% endmacro %}
{% macro databricks__person_key(name) %}{{ spark__person_key(name) }}{% endmacro %}

{# A short key made of columns: none of them may be null. #}
{% macro key_of(columns) %}md5(concat_ws('|', {% for column in columns %}cast({{ column }} as {{ dbt.type_string() }}){{ ", " if not loop.last }}{% endfor %})){% endmacro %}

{# When this run of dbt began: the same in every row of a run, and no function of the clock. #}
{% macro run_time() %}cast('{{ run_started_at.strftime("%Y-%m-%d %H:%M:%S.%f") }}' as timestamp){% endmacro %}

{# Thousandths of a second as whole numbers compare without surprises; seconds do not. #}
{% macro milliseconds(seconds) %}cast(round({{ seconds }} * 1000) as bigint){% endmacro %}
{% macro seconds(milliseconds) %}cast(round({{ milliseconds }} / 1000.0, 3) as double){% endmacro %}
