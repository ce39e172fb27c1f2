-- Lines about patents that cannot be used, with every reason.
select reasons, grant_doc_num_text, title, source, _file
from {{ ref('validated.patent_lines') }}
where reasons is not null
